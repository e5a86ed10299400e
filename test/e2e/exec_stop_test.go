package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestProbesRunOnWhileAContainerIsBeingStopped(t *testing.T) {
	t.Parallel()
	c := runPod(t).start(sh("trap 'touch /tmp/asked' TERM; echo ready; until [ -e /tmp/allowed ]; do sleep 0.1; done"))
	eventually(t, func() error { return wantText(c.written(), "ready") })
	stopped := make(chan error, 1)
	go func() {
		_, err := berth.Runtime.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: c.id, Timeout: 30})
		stopped <- err
	}()
	eventually(t, func() error {
		if _, exit := c.exec("/bin/test", "-e", "/tmp/asked"); exit != 0 {
			return fmt.Errorf("it has not been asked to end")
		}
		return nil
	})
	if out := c.sh("touch /tmp/allowed; echo alive"); out != "alive" {
		t.Errorf("got %q", out)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if s := c.status(); s.ExitCode != 0 {
		t.Errorf("it was killed: %v", s)
	}
}

func TestAnExecWaitsForABerthRuntimeThatIsAboutToComeBack(t *testing.T) {
	c := runPod(t).start(sleeper())
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{v.AnchorPID, v.WorkerPID}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error { return gone(pids) })
	r, err := c.execSync(t.Context(), 20, "/bin/echo", "here")
	if err != nil || string(r.Stdout) != "here\n" {
		t.Errorf("got %v, %v", r, err)
	}
}

// children are the processes below berth-runtime's, those that ended and were not
// reaped apart.
func children(t *testing.T) (all, zombies []string) {
	t.Helper()
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		if parent := fields[1]; parent != strconv.Itoa(v.WorkerPID) && parent != strconv.Itoa(v.AnchorPID) {
			continue
		}
		all = append(all, string(data))
		if fields[0] == "Z" {
			zombies = append(zombies, string(data))
		}
	}
	return all, zombies
}

func TestExecsLeaveNoZombieAndNoDescriptor(t *testing.T) {
	c := runPod(t).start(sleeper())
	script := "(sleep 0.01 &); (setsid sh -c 'sleep 0.02 & exit' &); exit 1"
	for range 20 {
		c.exec("/bin/sh", "-c", script)
	}
	before, _ := children(t)
	fds, _ := footprint(t)
	for n := range 100 {
		if _, exit := c.exec("/bin/sh", "-c", script); exit != 1 {
			t.Fatalf("exit %d of exec %d", exit, n)
		}
	}
	eventually(t, func() error {
		all, zombies := children(t)
		if now, _ := footprint(t); now > fds+3 || len(zombies) > 0 || len(all) > len(before) {
			return fmt.Errorf("%d descriptors of %d, %d processes of %d, zombies %v", now, fds, len(all), len(before), zombies)
		}
		return nil
	})
}
