package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
	"github.com/berth-run/berth/test/testutil"
)

// withoutDaemon calls f while the daemon is away, stopped or killed.
func withoutDaemon(t *testing.T, end func() error, f func()) {
	t.Helper()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := berth.Start(); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

func TestNamesAndStatesOutliveTheDaemon(t *testing.T) {
	p, stopped := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Annotations = map[string]string{"a": "b\n"}
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18120}}
	}), runPod(t, own)
	created, running, ended := p.create(sleeper()), p.start(server(80, "before")), p.startAndEnd()
	limited := sleeper()
	limited.Linux.Resources.MemoryLimitInBytes = 100 << 20
	changed := p.start(limited)
	if err := changed.update(&cri.LinuxContainerResources{MemoryLimitInBytes: 50 << 20}); err != nil {
		t.Fatal(err)
	}
	stopped.stop()
	all := []*ctr{created, running, ended, changed}
	var before []*cri.ContainerStatus
	for _, c := range all {
		before = append(before, c.status())
	}
	pods := []*cri.PodSandboxStatus{p.status(), stopped.status()}
	for name, end := range map[string]func() error{"stopped": berth.StopDaemon, "killed": berth.Kill} {
		withoutDaemon(t, end, func() { wantAnswer(t, "127.0.0.1:18120", "before") })
		for i, c := range all {
			if diff := cmp.Diff(before[i], c.status(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: container %d: %s", name, i, diff)
			}
		}
		for i, q := range []*pod{p, stopped} {
			if diff := cmp.Diff(pods[i], q.status(), protocmp.Transform()); diff != "" {
				t.Errorf("%s: pod %d: %s", name, i, diff)
			}
		}
		again, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: p.config})
		if err != nil || again.PodSandboxId != p.id {
			t.Errorf("%s: the same pod again: %v, %v", name, again, err)
		}
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: stopped.config}); code(err) != codes.AlreadyExists {
			t.Errorf("%s: the stopped pod's name: %v", name, err)
		}
	}
	created.start()
	if out := created.sh("echo runs"); out != "runs" {
		t.Errorf("the created container says %q", out)
	}
	p.remove()
	if _, err := ask("127.0.0.1:18120"); err == nil {
		t.Error("the port is open after the pod's removal")
	}
}

func TestWhatHappensWithoutTheDaemonIsSeenAfterwards(t *testing.T) {
	p := runPod(t)
	waiting := func(then string) *ctr {
		return p.start(sh("echo ready; while [ ! -e /tmp/go ]; do sleep 0.01; done; " + then))
	}
	containers := map[string]*ctr{"exit 7": waiting("exit 7"), "exit 0": waiting("exit 0")}
	hungry := sh("echo ready; while [ ! -e /tmp/go ]; do sleep 0.01; done; tail /dev/zero")
	hungry.Linux.Resources.MemoryLimitInBytes = 16 << 20
	containers["tail"] = p.start(hungry)
	writer := p.start(sh("i=0; while [ ! -e /tmp/go ]; do echo $i; i=$((i+1)); sleep 0.005; done; echo end"))
	var pids []int
	for _, c := range containers {
		eventually(t, func() error { return wantText(c.written(), "ready") })
		pids = append(pids, c.pid())
		c.sh("(sleep 0.2; touch /tmp/go) >/dev/null 2>&1 &")
	}
	withoutDaemon(t, berth.StopDaemon, func() {
		ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(20*time.Second))
		defer cancel()
		if err := testnode.Until(ctx, func() error { return gone(pids) }); err != nil {
			t.Error(err)
		}
	})
	for script, want := range map[string]string{"exit 7": "7 Error", "exit 0": "0 Completed", "tail": "137 OOMKilled"} {
		s := containers[script].await()
		if got := fmt.Sprint(s.ExitCode, " ", s.Reason); got != want {
			t.Errorf("%s: got %s, want %s", script, got, want)
		}
		if s.FinishedAt <= s.StartedAt || time.Since(time.Unix(0, s.FinishedAt)) > testutil.Patience(time.Minute) {
			t.Errorf("%s: it began at %d and ended at %d", script, s.StartedAt, s.FinishedAt)
		}
	}
	writer.sh("(sleep 0.2; touch /tmp/go) >/dev/null 2>&1 &")
	writer.await()
	for i, l := range writer.log() {
		if string(l.text) != fmt.Sprint(i) && string(l.text) != "end" {
			t.Fatalf("line %d of the log is %q", i, l.text)
		}
	}
}

// gone tells which of the processes is there still.
func gone(pids []int) error {
	for _, pid := range pids {
		if testnode.Alive(pid) {
			return fmt.Errorf("process %d runs", pid)
		}
	}
	return nil
}

func TestTheDaemonHoldsNothingOfWhatIsGone(t *testing.T) {
	cycle := func() {
		p := runPod(t, own)
		c := p.start(sh("exec sleep 1000"))
		c.sh("true")
		c.stop(0)
		p.remove()
	}
	for range 5 { // until pools and caches have what they keep
		cycle()
	}
	supervisor, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	processes := map[string]int{"berthd": berth.DaemonPID(), "anchor": supervisor.AnchorPID, "worker": supervisor.WorkerPID}
	before := map[string]int{}
	for name, pid := range processes {
		if before[name], err = testnode.Fds(pid); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		cycle()
	}
	eventually(t, func() error {
		for name, pid := range processes {
			if now, err := testnode.Fds(pid); err != nil || now > before[name]+2 {
				return fmt.Errorf("%s has %d files open, %d before, %w", name, now, before[name], err)
			}
		}
		return nil
	})
}

func TestADaemonDoesNotShareItsDirectories(t *testing.T) {
	second, err := testnode.New(berth.Dir, options(berth.Dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(20*time.Second))
	defer cancel()
	out, err := second.Daemon(ctx).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another berthd") {
		t.Errorf("a second daemon: %v, %s", err, out)
	}
	if _, err := berth.Runtime.Version(t.Context(), &cri.VersionRequest{}); err != nil {
		t.Errorf("the first: %v", err)
	}
}
