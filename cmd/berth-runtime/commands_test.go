package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/test/testutil"
)

// commanding is a Runtime whose containers are made by a command.
type commanding struct {
	*runtime.Client
	by runtime.Command
}

func (c *commanding) Create(ctx context.Context, r runtime.CreateRequest) (runtime.Container, error) {
	r.Command = &c.by
	return c.Client.Create(ctx, r)
}

// withCommands runs test with each command, on a server of its own.
func withCommands(t *testing.T, test func(t *testing.T, c *commanding, state string)) {
	for name, path := range testutil.Commands(t) {
		t.Run(name, func(t *testing.T) {
			c, state := serve(t)
			by := runtime.Command{Path: path, Root: filepath.Join(state, "oci", name)}
			test(t, &commanding{c, by}, state)
			for _, pattern := range []string{by.Root + "/*", state + "/runtime/engine/.oci/*", state + "/runtime/exits/*"} {
				testutil.Await(t, 10*time.Second, func() error { // the anchor may be behind
					left, err := filepath.Glob(pattern)
					left = slices.DeleteFunc(left, func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") })
					if err != nil || len(left) > 0 {
						return fmt.Errorf("left over: %q, %w", left, err)
					}
					return nil
				})
			}
		})
	}
}

func TestContainersOfCommandsConform(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, _ string) {
		root := rootfs(t)
		runtimetest.Run(t,
			func(*testing.T) runtime.Runtime { return c },
			func(_ *testing.T, id string) *specs.Spec { return containerSpec(root, id, "sleep", "1000") })
	})
}

// ended returns the container once it has ended.
func ended(t *testing.T, c runtime.Runtime, id string) (got runtime.Container) {
	t.Helper()
	testutil.Await(t, 30*time.Second, func() error {
		all, err := c.List(t.Context())
		i := slices.IndexFunc(all, func(k runtime.Container) bool { return k.ID == id })
		if err != nil || i < 0 || all[i].State != runtime.Stopped {
			return fmt.Errorf("%v, %w", all, err)
		}
		got = all[i]
		return nil
	})
	return got
}

// begin runs a container and leaves its removal to the caller.
func begin(t *testing.T, c runtime.Runtime, r runtime.CreateRequest) {
	t.Helper()
	if _, err := c.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, c runtime.Runtime, id string) {
	t.Helper()
	if err := c.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestACommandsContainerWritesItsLogAndExits(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, state string) {
		log := filepath.Join(state, "log")
		begin(t, c, runtime.CreateRequest{ID: "c", Spec: containerSpec(rootfs(t), "c", "sh", "-c", "echo out; echo err >&2; exit 9"), LogPath: log})
		if got := ended(t, c, "c"); got.ExitCode != 9 {
			t.Errorf("got %+v", got)
		}
		data, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(data), "stdout F out") || !strings.Contains(string(data), "stderr F err") {
			t.Errorf("log %q, %v", data, err)
		}
		remove(t, c, "c")
	})
}

func TestWhatACommandCannotMakeIsSaidAndLeavesNothing(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, _ string) {
		spec := containerSpec(rootfs(t), "c", "sh")
		spec.Process.Args = []string{"nosuch"}
		_, err := c.Create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec})
		if err == nil || !strings.Contains(err.Error(), "nosuch") || !strings.Contains(err.Error(), "not found in $PATH") {
			t.Errorf("got %v", err)
		}
		gone := &commanding{c.Client, runtime.Command{Path: c.by.Path + "-gone", Root: c.by.Root}}
		if _, err := gone.Create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec}); err == nil {
			t.Error("a command that is not there has made a container")
		}
		spec.Process.Args, spec.Process.Env = []string{"sh"}, []string{"A=\xff"}
		request := runtime.CreateRequest{ID: "c", Spec: spec, Env: [][]byte{[]byte("A=\xff")}}
		if _, err := c.Create(t.Context(), request); !errors.Is(err, errs.Unsupported) {
			t.Errorf("bytes that JSON has not: %v", err)
		}
	})
}

func TestExecByACommand(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, _ string) {
		spec := containerSpec(rootfs(t), "c", "sleep", "1000")
		begin(t, c, runtime.CreateRequest{ID: "c", Spec: spec})
		exec := func(script string, timeout time.Duration) (runtime.ExecResult, error) {
			p := *spec.Process
			p.Args = []string{"/bin/busybox", "sh", "-c", script}
			return c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p, Timeout: timeout})
		}
		for range 3 {
			r, err := exec("echo out; echo err >&2; exit 3", 0)
			if err != nil || r.ExitCode != 3 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
				t.Errorf("got %+v, %v", r, err)
			}
		}
		if r, err := exec("setsid sleep 4711 & sleep 4711", time.Second); err != nil || !r.TimedOut {
			t.Errorf("got %+v, %v", r, err)
		}
		testutil.Await(t, 10*time.Second, func() error {
			r, err := exec("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep '^sleep 4711'; done; true", 0)
			if err != nil || len(r.Stdout) > 0 {
				return fmt.Errorf("what the exec started runs on: %q %w", r.Stdout, err)
			}
			return nil
		})
		if r, err := exec("ps | grep -c 'sleep 1000'", 0); err != nil || string(r.Stdout) == "0\n" {
			t.Errorf("the container's own: %+v, %v", r, err)
		}
		p := *spec.Process
		p.Args = []string{"nosuch"}
		if _, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p}); err == nil || !strings.Contains(err.Error(), "nosuch") {
			t.Errorf("a program that is not there: %v", err)
		}
		remove(t, c, "c")
	})
}

func TestTerminalsOfACommandsContainer(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, state string) {
		spec := containerSpec(rootfs(t), "c", "sh", "-c", "read x; echo got $x; stty size; read y")
		spec.Process.Terminal = true
		log := filepath.Join(state, "log")
		if _, err := c.Create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec, Stdin: true, LogPath: log}); err != nil {
			t.Fatal(err)
		}
		if err := c.Resize(t.Context(), "c", 100, 30); err != nil {
			t.Error(err)
		}
		if _, err := c.Start(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		in, inW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer inW.Close()
		fmt.Fprintln(inW, "hello")
		ctx, cancel := context.WithCancel(t.Context())
		attached := make(chan error, 1)
		go func() {
			attached <- c.Attach(ctx, runtime.AttachRequest{ID: "c"}, runtime.AttachIO{Stdin: in})
		}()
		testutil.Await(t, 20*time.Second, func() error {
			data, err := os.ReadFile(log)
			if err != nil || !strings.Contains(string(data), "stdout F got hello") || !strings.Contains(string(data), "stdout F 30 100") {
				return fmt.Errorf("log: %q, %w", data, err)
			}
			return nil
		})
		cancel()
		<-attached
		remove(t, c, "c")
	})
}

func TestACommandsContainerOutlivesTheWorker(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, state string) {
		log := filepath.Join(state, "log")
		const script = `trap 'echo term; exit 8' TERM; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; echo end; while :; do busybox sleep 0.1; done`
		spec := containerSpec(rootfs(t), "c", "sh", "-c", script)
		begin(t, c, runtime.CreateRequest{ID: "c", Spec: spec, LogPath: log})
		first := await(t, c.Client, func(runtime.Version) bool { return true })
		if err := syscall.Kill(first.WorkerPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await(t, c.Client, func(now runtime.Version) bool { return now.WorkerPID != first.WorkerPID })
		p := *spec.Process
		p.Args = []string{"/bin/busybox", "true"}
		if r, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p}); err != nil || r.ExitCode != 0 {
			t.Errorf("exec: %+v, %v", r, err)
		}
		if err := errors.Join(c.Pause(t.Context(), "c"), c.Resume(t.Context(), "c")); err != nil {
			t.Error(err)
		}
		testutil.Await(t, 30*time.Second, func() error {
			data, err := os.ReadFile(log)
			if err != nil || !strings.Contains(string(data), " stdout F end\n") {
				return fmt.Errorf("%d bytes, %w", len(data), err)
			}
			return nil
		})
		if err := c.Kill(t.Context(), runtime.KillRequest{ID: "c", Signal: int(syscall.SIGTERM)}); err != nil {
			t.Error(err)
		}
		if got := ended(t, c, "c"); got.ExitCode != 8 {
			t.Errorf("got %+v", got)
		}
		data, err := os.ReadFile(log)
		if n := strings.Count(string(data), "\n"); err != nil || n != 20002 {
			t.Errorf("%d lines, %v", n, err)
		}
		remove(t, c, "c")
	})
}

// TestAWorkerThatIsKilledWhileACommandRuns has the next one wait for the command,
// remove what it made, and make the container that the client asks for again.
func TestAWorkerThatIsKilledWhileACommandRuns(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, state string) {
		slow, mark := filepath.Join(state, "slow"), filepath.Join(state, "mark")
		script := "#!/bin/sh\ncase \"$*\" in *' create '*|*' exec '*--pid-file*) echo >>" + mark + "; sleep 1;; esac\nexec " + c.by.Path + " \"$@\"\n"
		if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c.by.Path = slow
		kill := func(f func() error) error {
			before, _ := os.ReadFile(mark)
			v := await(t, c.Client, func(runtime.Version) bool { return true })
			done := make(chan error, 1)
			go func() { done <- f() }()
			testutil.Await(t, 20*time.Second, func() error {
				now, err := os.ReadFile(mark)
				if len(now) == len(before) {
					return fmt.Errorf("it has not begun: %w", err)
				}
				return nil
			})
			if err := syscall.Kill(v.WorkerPID, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			return <-done
		}
		spec := containerSpec(rootfs(t), "c", "sleep", "1000")
		err := kill(func() error {
			_, err := c.Create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Start(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		p := *spec.Process
		p.Args = []string{"/bin/busybox", "sh", "-c", "sleep 4713; true"}
		r, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p, Timeout: 300 * time.Millisecond})
		if err != nil || !r.TimedOut {
			t.Errorf("a timeout while the command runs: %+v, %v", r, err)
		}
		err = kill(func() error {
			_, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p})
			return err
		})
		if err == nil {
			t.Error("an exec outlives its worker")
		}
		testutil.Await(t, 30*time.Second, func() error {
			p.Args = []string{"/bin/busybox", "sh", "-c", "busybox ps | busybox grep '[s]leep 4713'; true"}
			r, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p})
			if err != nil || len(r.Stdout) > 0 {
				return fmt.Errorf("the exec runs on: %q %w", r.Stdout, err)
			}
			return nil
		})
		remove(t, c, "c")
	})
}

func TestLimitsOfACommandsContainerAreUpdated(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, _ string) {
		spec := containerSpec(rootfs(t), "c", "sleep", "1000")
		begin(t, c, runtime.CreateRequest{ID: "c", Spec: spec})
		limit, adj := int64(77), 321
		r := runtime.UpdateRequest{ID: "c", Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}, OOMScoreAdj: &adj}
		if err := c.Update(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
			if data, err := os.ReadFile(hierarchy + cgroup + "/c/pids.max"); err == nil {
				got = data
			}
		}
		if string(got) != "77\n" {
			t.Errorf("limit %q", got)
		}
		all, err := c.List(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", all[0].PID)); err != nil || string(got) != "321\n" {
			t.Errorf("adj %q, %v", got, err)
		}
		remove(t, c, "c")
	})
}

func TestAContainerCanBeRemovedWithoutItsCommand(t *testing.T) {
	withCommands(t, func(t *testing.T, c *commanding, state string) {
		path := filepath.Join(state, "command")
		if err := os.Symlink(c.by.Path, path); err != nil {
			t.Fatal(err)
		}
		c.by.Path = path
		begin(t, c, runtime.CreateRequest{ID: "c", Spec: containerSpec(rootfs(t), "c", "sleep", "1000")})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		remove(t, c, "c")
	})
}
