package supervisor

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// orphan lets a worker become the anchor, as one does that a supervisor of
// services does not know.
func (s *server) orphan(t *testing.T) runtime.Version {
	t.Helper()
	v := s.now(t)
	s.kill(t, v.AnchorPID, unix.SIGKILL)
	_ = s.anchor.Wait()
	return s.await(t, func(now runtime.Version) bool { return now.AnchorPID == v.WorkerPID })
}

// standBy starts one more berth-runtime, which waits for the first to go.
func (s *server) standBy(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], "serve", s.state)
	said, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "standing by") {
			go func() { _, _ = io.Copy(os.Stderr, said) }() // until the process ends
			return c
		}
	}
	t.Fatal("it does not stand by")
	return nil
}

func TestStandbyPassesOnWhatItIsTold(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	awaitMore(t, log)
	before := s.orphan(t)
	standby := s.standBy(t)
	s.kill(t, standby.Process.Pid, unix.SIGUSR2)
	s.await(t, func(now runtime.Version) bool {
		return now.AnchorPID == before.AnchorPID && now.WorkerPID != before.WorkerPID
	})
	s.kill(t, standby.Process.Pid, unix.SIGTERM)
	if err := standby.Wait(); err != nil {
		t.Error(err)
	}
	awaitEnd(t, before.AnchorPID)
	s.start(t)
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}

func TestStandbyServesWhenTheOtherIsGone(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	v := s.orphan(t)
	standby := s.standBy(t)
	s.kill(t, v.WorkerPID, unix.SIGSTOP) // so that it cannot take over
	s.kill(t, v.AnchorPID, unix.SIGKILL)
	s.kill(t, v.WorkerPID, unix.SIGKILL)
	s.await(t, func(now runtime.Version) bool { return now.AnchorPID == standby.Process.Pid })
	s.anchor = standby
	s.awaitStopped(t, "c")
	wantLines(t, log, lines)
}
