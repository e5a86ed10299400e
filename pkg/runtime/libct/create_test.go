package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/test/testutil"
)

func TestCreateWaitsForStart(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "c1", baseSpec(t, "c1", "/bin/sh", "-c", "echo pid $$; hostname; exit 7"))
	if err := unix.PidfdSendSignal(int(b.p.PIDFD.Fd()), 0, nil, 0); err != nil {
		t.Fatalf("no process waits: %v", err)
	}
	out, code := b.output()
	if code != 7 || out != "pid 1\nbox\n" {
		t.Errorf("got %q, exit %d", out, code)
	}
	if err := e.Start(t.Context(), "c1", OpenGate); !errors.Is(err, errs.Conflict) {
		t.Errorf("second start: %v", err)
	}
	if _, err := e.Create(t.Context(), "c1", b.spec, runtime.ProcessIO{}); !errors.Is(err, errs.Exists) {
		t.Errorf("second create: %v", err)
	}
}

func TestStartAfterAWorkerWasKilledAtTheGate(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "g1", baseSpec(t, "g1", "/bin/sh", "-c", "echo through; exit 7"))
	for range 3 {
		dead := make(chan struct{})
		go func() {
			defer close(dead)
			_ = e.Start(context.Background(), "g1", func(path string) (int, error) {
				fd, err := OpenGate(path)
				if err != nil {
					t.Error(err)
				}
				_ = unix.Close(fd) // as the kernel does for the dead
				goruntime.Goexit()
				return fd, err
			})
		}()
		<-dead
		ended := []unix.PollFd{{Fd: int32(b.p.PIDFD.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 20); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal("the process has ended", err)
		}
	}
	if out, code := b.output(); code != 7 || out != "through\n" {
		t.Errorf("got %q, exit %d", out, code)
	}
}

func TestCreateFailureLeavesNothing(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "bad", "/nope")
	_, err := e.Create(t.Context(), "bad", spec, runtime.ProcessIO{})
	if err == nil || !strings.Contains(err.Error(), "/nope") {
		t.Fatalf("got %v", err)
	}
	spec.Process.Args = []string{"/bin/true"}
	b := create(t, e, "bad", spec)
	if _, code := b.output(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestDestroyKillsAndIsIdempotent(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "d1", baseSpec(t, "d1", "/bin/sleep", "1000")).start()
	for range 2 {
		if err := e.Destroy(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
	}
	b.waited = true
	if code := wait(t, b.p); code != 137 {
		t.Errorf("exit %d", code)
	}
}

func TestAnotherEngineTakesOver(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "r1", baseSpec(t, "r1", "/bin/sleep", "1000"))
	again, err := New(e.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.e = again
	b.start()
	testutil.Await(t, 10*time.Second, func() error { // it is through the gate, and about to execute the program
		if comm := b.sh("cat /proc/1/comm"); comm != "sleep" {
			return fmt.Errorf("the first process is %q", comm)
		}
		return nil
	})
	if err := again.Signal(t.Context(), "r1", int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	b.waited = true
	if code := wait(t, b.p); code != 137 {
		t.Errorf("exit %d", code)
	}
	if err := again.Signal(t.Context(), "r1", int(unix.SIGTERM), false); err != nil {
		t.Errorf("signal to the stopped: %v", err)
	}
}

func TestSystemdIsToldWhatHasNoLimitAndWhatHasNoSwap(t *testing.T) {
	const limit = 64 << 20
	for name, k := range map[string]struct {
		systemd bool
		r       *specs.LinuxResources
		pids    *int64
		noSwap  bool
	}{
		"nothing asked":   {systemd: true, pids: ptr(int64(-1))},
		"no swap":         {systemd: true, r: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(limit)), Swap: ptr(int64(limit))}}, pids: ptr(int64(-1)), noSwap: true},
		"swap":            {systemd: true, r: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(limit)), Swap: ptr(int64(limit + 1))}}, pids: ptr(int64(-1))},
		"processes":       {systemd: true, r: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(50))}}, pids: ptr(int64(50))},
		"the file system": {r: &specs.LinuxResources{}},
	} {
		e := &Engine{opts: Options{SystemdCgroup: k.systemd}, v1: &cgroup.V1{}}
		spec := &specs.Spec{
			Version: specs.Version, Root: &specs.Root{Path: t.TempDir()}, Process: &specs.Process{Cwd: "/"},
			Linux: &specs.Linux{CgroupsPath: "a.slice:berth:p1", Resources: k.r},
		}
		c, err := e.config("p1", spec, spec.Process)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(k.pids, c.Cgroups.PidsLimit); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if said := len(c.Cgroups.SystemdProps) == 1 && c.Cgroups.SystemdProps[0].Name == "MemorySwapMax"; said != k.noSwap {
			t.Errorf("%s: %v", name, c.Cgroups.SystemdProps)
		}
		if spec.Annotations != nil || spec.Linux.Resources != k.r || k.r != nil && k.pids != nil && *k.pids < 0 && k.r.Pids != nil {
			t.Errorf("%s: the caller's spec was changed", name)
		}
	}
}

func TestAnAppArmorProfileThatIsNotLoadedIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "profiles")
	if err := os.WriteFile(file, []byte("site (enforce)\nsite//child (complain)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"site": true, "site//child": true, "sit": false, "child": false, "other": false, "other//&site": true, ":ns:other": true} {
		if got := profileLoaded(file, name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if !profileLoaded(file+"-none", "other") {
		t.Error("without the file nothing is sure")
	}
}
