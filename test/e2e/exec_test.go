package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

func (c *ctr) execSync(ctx context.Context, timeout int64, cmd ...string) (*cri.ExecSyncResponse, error) {
	return berth.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: cmd, Timeout: timeout})
}

func TestAnExecIsTheContainersOwn(t *testing.T) {
	config := sleeper()
	config.Envs = []*cri.KeyValue{{Key: "NAME", Value: []byte("value")}}
	config.WorkingDir = "/tmp"
	security(config).RunAsUser = &cri.Int64Value{Value: 1234}
	security(config).NoNewPrivs = true
	profileOf(cri.SecurityProfile_RuntimeDefault, "")(security(config))
	config.Linux.Resources.OomScoreAdj = 777
	p := runPod(t, own)
	c := p.start(config)
	r, err := c.execSync(t.Context(), 10, "/bin/sh", "-c", "echo out; echo err >&2; exit 42")
	if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 42 {
		t.Errorf("got %v, %v", r, err)
	}
	out := c.sh("id -u; pwd; echo $NAME; hostname; cat /proc/self/oom_score_adj; grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status")
	if want := "1234\n/tmp\nvalue\n" + p.id[:12] + "\n777\n"; !strings.HasPrefix(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	// In version 2 the container has a namespace, whose root is its cgroup.
	procs := c.sh("cat /proc/self/cgroup")
	if !strings.Contains(procs, c.id) && !strings.HasPrefix(procs, "0::/exec-") {
		t.Errorf("the exec is not in the container's cgroups: %s", procs)
	}
}

func TestATimeoutKillsTheExecsTreeAlone(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	began := time.Now()
	r, err := c.execSync(t.Context(), 1, "/bin/sh", "-c", "trap '' TERM; sleep 2001 & setsid sleep 2002 & (sleep 2003 &); sleep 2004")
	if code(err) != codes.DeadlineExceeded || time.Since(began) < time.Second || time.Since(began) > 10*time.Second {
		t.Errorf("got %v, %v after %s", r, err, time.Since(began))
	}
	eventually(t, func() error {
		if out := c.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(out, "sleep 200") {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container: %v", s)
	}
}

func TestACancelledExecIsKilled(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.execSync(ctx, 0, "/bin/sh", "-c", "touch /tmp/began; sleep 3001")
		done <- err
	}()
	eventually(t, func() error {
		_, code := c.exec("/bin/sh", "-c", "test -e /tmp/began")
		if code != 0 {
			return fmt.Errorf("it has not begun")
		}
		return nil
	})
	cancel()
	if err := <-done; code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	eventually(t, func() error {
		if out := c.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(out, "sleep 3001") {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
}

func TestAnExecThatLeavesChildrenIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	r, err := c.execSync(t.Context(), 20, "/bin/sh", "-c", "sleep 4001 & echo done")
	if err != nil || string(r.Stdout) != "done\n" || r.ExitCode != 0 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestOutputThatIsTooLongIsCutToWhatKubeletTakes(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	const limit = 16 << 20 // of kubelet's client
	for script, want := range map[string][2]int{
		"head -c 20000000 /dev/zero; exit 3":                                 {limit - 64, 0},
		"head -c 16000000 /dev/zero; echo x >&2; exit 3":                     {16000000, 2},
		"head -c 20000000 /dev/zero; head -c 18000000 /dev/zero >&2; exit 3": {limit/2 - 32, limit/2 - 32},
	} {
		r, err := berth.Runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/sh", "-c", script}, Timeout: 60}, grpc.MaxCallRecvMsgSize(limit))
		if err != nil || len(r.Stdout) != want[0] || len(r.Stderr) != want[1] || r.ExitCode != 3 {
			t.Errorf("%s: got %d and %d bytes, exit code %d, %v", script, len(r.GetStdout()), len(r.GetStderr()), r.GetExitCode(), err)
		}
	}
}

// peaks tells the most memory that a process has from now on beyond what it has now.
func peaks(t *testing.T, pid int) (grown func() int64) {
	t.Helper()
	testutil.ForgetPeak(t, pid)
	before := testutil.PeakMemory(t, pid)
	return func() int64 { return testutil.PeakMemory(t, pid) - before }
}

func TestLongOutputTakesLittleMemory(t *testing.T) {
	c := runPod(t).start(sleeper())
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	worker, daemon := peaks(t, v.WorkerPID), peaks(t, berth.DaemonPID())
	r, err := c.execSync(t.Context(), 60, "/bin/sh", "-c", "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2")
	if err != nil || len(r.Stdout) != len(r.Stderr) {
		t.Fatalf("%d and %d bytes, %v", len(r.GetStdout()), len(r.GetStderr()), err)
	}
	inWorker, inDaemon := worker(), daemon()
	t.Logf("two streams of 20 MB: berth-runtime grows by %d KiB, berthd by %d KiB", inWorker>>10, inDaemon>>10)
	if inWorker > 16<<20 || inDaemon > 96<<20 {
		t.Errorf("berth-runtime grows by %d KiB, berthd by %d KiB", inWorker>>10, inDaemon>>10)
	}
}

func TestExecsThatCannotBe(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	for name, cmd := range map[string][]string{"missing": {"no-such-program"}, "missing path": {"/no/such/program"}, "directory": {"/bin"}} {
		r, err := c.execSync(t.Context(), 5, cmd...)
		if code(err) != codes.InvalidArgument && code(err) != codes.NotFound {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if _, err := c.execSync(t.Context(), 5); code(err) != codes.InvalidArgument {
		t.Errorf("no command: %v", err)
	}
	created := p.create(sleeper())
	if _, err := created.execSync(t.Context(), 5, "true"); code(err) != codes.FailedPrecondition {
		t.Errorf("in one that has not started: %v", err)
	}
	c.stop(0)
	if _, err := c.execSync(t.Context(), 5, "true"); code(err) != codes.FailedPrecondition {
		t.Errorf("in one that has ended: %v", err)
	}
	if _, err := berth.Runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "0123456789", Cmd: []string{"true"}}); code(err) != codes.NotFound {
		t.Errorf("in one that is not there: %v", err)
	}
}

func TestExecsOfOneContainerRunAtOnce(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			text := fmt.Sprintf("number %d", i)
			r, err := c.execSync(t.Context(), 30, "/bin/sh", "-c", "echo "+text+"; exit "+fmt.Sprint(i))
			if err != nil || string(r.Stdout) != text+"\n" || int(r.ExitCode) != i {
				t.Errorf("%d: %v, %v", i, r, err)
			}
		})
	}
	wg.Wait()
}

func TestAnExecEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sleeper())
	done := make(chan *cri.ExecSyncResponse, 1)
	go func() {
		r, _ := c.execSync(context.WithoutCancel(t.Context()), 30, "/bin/sh", "-c", "touch /tmp/began; sleep 5001")
		done <- r
	}()
	eventually(t, func() error {
		if _, code := c.exec("/bin/sh", "-c", "test -e /tmp/began"); code != 0 {
			return fmt.Errorf("it has not begun")
		}
		return nil
	})
	c.stop(0)
	if r := <-done; r != nil && r.ExitCode != 137 {
		t.Errorf("got %v", r)
	}
}

func TestExecsLeaveNoCgroupsBehind(t *testing.T) {
	c := runPod(t).start(sleeper())
	for range 3 {
		c.sh("true")
	}
	left, err := filepath.Glob(c.cgroup("memory") + "/*/")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	procs, err := os.ReadFile(filepath.Join(c.cgroup("memory"), "cgroup.procs"))
	if err != nil || strings.Count(string(procs), "\n") != 1 {
		t.Errorf("processes %q, %v", procs, err)
	}
}
