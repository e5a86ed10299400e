package libct

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// counter counts, and says so a line at a time.
const counter = `n=0; while :; do n=$((n+1)); echo $n; echo $n > /data/n; sleep 0.1; done`

// fifos are streams as the supervisor makes them.
func fifos(t *testing.T) (map[string]string, runtime.ProcessIO, *os.File) {
	t.Helper()
	dir, paths, io := t.TempDir(), map[string]string{}, runtime.ProcessIO{}
	var ours *os.File
	for _, name := range []string{"stdout", "stderr"} {
		path := filepath.Join(dir, name)
		paths[name] = path
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		w, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		if name == "stdout" {
			io.Stdout, ours = w, r
		} else {
			io.Stderr = w
		}
	}
	return paths, io, ours
}

// dumped is a container of a pod, and a dump of it.
type dumped struct {
	t    *testing.T
	e    *Engine
	dir  string
	spec *specs.Spec
	at   int // what it had counted to
}

// inPod makes a pod and lets a copy of the spec join it.
func inPod(t *testing.T, e *Engine, id string, spec *specs.Spec) *specs.Spec {
	t.Helper()
	r := podOf(t, id, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	createPod(t, e, r)
	joined, linux := *spec, *spec.Linux
	linux.Namespaces = slices.Clone(linux.Namespaces)
	joined.Linux = &linux
	return join(&joined, r)
}

func count(spec *specs.Spec) (n int) {
	data, _ := os.ReadFile(filepath.Join(spec.Root.Path, "data/n"))
	_, _ = fmt.Sscan(string(data), &n)
	return n
}

func awaitCount(t *testing.T, spec *specs.Spec, n int) {
	t.Helper()
	testutil.Await(t, 30*time.Second, func() error {
		if got := count(spec); got < n {
			return fmt.Errorf("counted to %d, not %d", got, n)
		}
		return nil
	})
}

// dumpCounter lets a container count, dumps it, sees it go on, and ends it.
func dumpCounter(t *testing.T, e *Engine, id string) dumped {
	t.Helper()
	d := dumped{t: t, e: e, dir: t.TempDir(), spec: inPod(t, e, id+"-pod", baseSpec(t, id, "/bin/bash", "-c", counter))}
	paths, io, _ := fifos(t)
	p, err := e.Create(t.Context(), id, d.spec, io)
	if err == nil {
		err = e.Start(t.Context(), id, OpenGate)
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitCount(t, d.spec, 3)
	if err := e.Freeze(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	if err := e.Checkpoint(t.Context(), runtime.CheckpointRequest{ID: id, Spec: d.spec, Dir: d.dir}, paths); err != nil {
		t.Fatal(err)
	}
	d.at = count(d.spec)
	if err := e.Freeze(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	awaitCount(t, d.spec, d.at+2)
	_ = unix.Kill(p.PID, unix.SIGKILL)
	wait(t, p)
	if err := e.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestARestoredContainerGoesOn(t *testing.T) {
	e := newEngine(t)
	if err := e.CanCheckpoint(t.Context()); err != nil {
		t.Skip(err) // seldom on the machines that tests run on: test/vm has it
	}
	d := dumpCounter(t, e, "ck1")
	if err := os.WriteFile(filepath.Join(d.spec.Root.Path, "data/n"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	again := inPod(t, e, "ck2-pod", d.spec)
	_, io, out := fifos(t)
	p, err := e.Restore(t.Context(), "ck2", again, io, d.dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, e: e, id: "ck2", spec: again, p: p, stdout: out}
	t.Cleanup(b.destroy)
	awaitCount(t, again, d.at+1)
	// What nobody had read is written down, too: no line is missing, none comes twice.
	told := ""
	testutil.Await(t, 10*time.Second, func() error {
		buf := make([]byte, 4096)
		n, err := out.Read(buf)
		told += string(buf[:max(n, 0)])
		if lines := strings.Count(told, "\n"); lines < d.at+3 {
			return fmt.Errorf("%d lines, %w", lines, err)
		}
		return nil
	})
	for i, line := range strings.Split(strings.TrimSpace(told), "\n") {
		if line != strconv.Itoa(i+1) {
			t.Errorf("line %d is %q", i+1, line)
		}
	}
	expect(t, "exec in it", b.sh("echo there"), "there")
	for _, frozen := range []bool{true, false} { // as the next checkpoint does
		if err := e.Freeze(t.Context(), "ck2", frozen); err != nil {
			t.Errorf("freeze %t: %v", frozen, err)
		}
	}
	awaitCount(t, again, count(again)+1)
}
