package oci

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// shell runs a script as adopt runs a command. The script finds its directory in $1.
func shell(ctx context.Context, dir, script string) (release func(), err error) {
	return adopt(ctx, filepath.Join(dir, lockName), [3]*os.File{}, []string{"/bin/sh", "-c", script, "sh", dir}, environment())
}

func TestWhatACommandLeavesIsReapedOnlyOnceItIsLetGo(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil { // as the anchor is
		t.Fatal(err)
	}
	dir := t.TempDir()
	release, err := shell(t.Context(), dir, `mkfifo $1/go; (read x <$1/go; exit 7) & echo $! >$1/pid`)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := pidFrom(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Fatalf("it does not end: %v", err)
	}
	if _, err := pidfd.Begun(pid); err != nil {
		t.Errorf("it is not there any more: %v", err)
	}
	release()
	release()
	var status unix.WaitStatus
	if got, err := unix.Wait4(pid, &status, 0, nil); got != pid || status.ExitStatus() != 7 {
		t.Errorf("process %d of %d: %v, %v", got, pid, status, err)
	}
}

func TestACommandEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	dir := t.TempDir()
	_, err := shell(ctx, dir, `echo $$ >$1/pid; sleep 1000; true`)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	testutil.Ends(t, filepath.Join(dir, "pid"), 10*time.Second)
}

func TestACommandsFailureIsTold(t *testing.T) {
	for script, want := range map[string]string{"exit 3": "status 3", "kill -9 $$": "signal 9"} {
		if _, err := shell(t.Context(), t.TempDir(), script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
	missing := []string{filepath.Join(t.TempDir(), "crun")}
	if _, err := adopt(t.Context(), filepath.Join(t.TempDir(), lockName), [3]*os.File{}, missing, nil); err == nil || !strings.Contains(err.Error(), "127") {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestACommandIsNoBetterProtectedThanItsContainer(t *testing.T) {
	dir := t.TempDir()
	release, err := adopt(t.Context(), filepath.Join(dir, lockName), [3]*os.File{}, []string{
		"/bin/sh", "-c", "cat /proc/self/oom_score_adj >$1/adj; env >$1/env", "sh", dir,
	}, append(environment(), adjVariable+"=432"))
	if err != nil {
		t.Fatal(err)
	}
	release()
	if got, err := os.ReadFile(filepath.Join(dir, "adj")); err != nil || string(got) != "432\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "env")); err != nil || strings.Contains(string(got), "_BERTH_") {
		t.Errorf("environment %q, %v", got, err)
	}
}

func TestTheLastErrorOfALogIsSaid(t *testing.T) {
	for log, want := range map[string]string{
		"":                                     "",
		`{"level":"warning","msg":"w"}` + "\n": "w",
		`{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"second"}` + "\n" + `{"level":"warning","msg":"w"}`: "second",
		"plain text\n": "plain text",
		`{"level":"error","msg":"e"}` + "\nplain\n": "e",
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastError(path); got != want {
			t.Errorf("%q: got %q", log, got)
		}
	}
}

func TestACommandKnowsNothingOfBerthsOwnVariables(t *testing.T) {
	t.Setenv("_BERTH_RUNTIME_ROLE", "worker")
	t.Setenv("OF_THE_NODE", "yes")
	all := strings.Join(environment(), "\n")
	if strings.Contains(all, "_BERTH_") || !strings.Contains(all, "OF_THE_NODE=yes") {
		t.Error(all)
	}
}

func TestACommandThatStillRunsIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	release, err := shell(t.Context(), dir, "true")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	path := filepath.Join(dir, lockName)
	if _, err := lock(ctx, path, unix.LOCK_EX); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	other, err := shell(t.Context(), dir, "true") // two may run
	if err != nil {
		t.Fatal(err)
	}
	other()
	release()
	f, err := lock(t.Context(), path, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestACommandIsToldOfNoPod(t *testing.T) {
	e := &Engine{dir: t.TempDir()}
	spec := &specs.Spec{
		Process: &specs.Process{Args: []string{"x"}}, Linux: &specs.Linux{CgroupsPath: "/none"},
		Annotations: map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p", "other": "o"},
	}
	c, err := e.prepare(runtime.Command{Path: "/x", Root: t.TempDir()}, "c", spec, runtime.ProcessIO{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(c.path("config.json"))
	var got specs.Spec
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	if err != nil || len(got.Annotations) != 1 || got.Annotations["other"] != "o" || len(spec.Annotations) != 3 {
		t.Errorf("the command's %v, the caller's %v: %v", got.Annotations, spec.Annotations, err)
	}
}
