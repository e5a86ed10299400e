package supervisor

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// lines is how long a counting container runs, in milliseconds and more.
const lines = 1500

func (s *server) kill(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func TestKilledWorkerLosesNothing(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	for range 5 {
		awaitMore(t, log)
		v := s.now(t)
		s.kill(t, v.WorkerPID, unix.SIGKILL)
		s.await(t, func(now runtime.Version) bool { return now.WorkerPID != v.WorkerPID && now.AnchorPID == v.AnchorPID })
	}
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}

func TestContainerThatEndsWithoutAWorkerKeepsItsExit(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", 300)
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	pid := all[0].PID
	v := s.now(t)
	s.kill(t, v.WorkerPID, unix.SIGSTOP)
	awaitEnd(t, pid)
	s.kill(t, v.WorkerPID, unix.SIGKILL)
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, 300)
}

func TestKilledAnchorIsReplacedByTheWorker(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	for range 3 {
		awaitMore(t, log)
		v := s.now(t)
		s.kill(t, v.AnchorPID, unix.SIGKILL)
		s.await(t, func(now runtime.Version) bool { return now.AnchorPID == v.WorkerPID })
	}
	_ = s.anchor.Wait()
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}

func TestUpgradeInPlaceKeepsEverything(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	for range 3 {
		awaitMore(t, log)
		v := s.now(t)
		s.kill(t, v.AnchorPID, unix.SIGUSR2)
		s.await(t, func(now runtime.Version) bool { return now.AnchorPID == v.AnchorPID && now.WorkerPID != v.WorkerPID })
	}
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}

func TestNextServerGoesOnAfterBothWereKilled(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	awaitMore(t, log)
	v := s.now(t)
	s.kill(t, v.WorkerPID, unix.SIGSTOP) // so that it cannot take over
	s.kill(t, v.AnchorPID, unix.SIGKILL)
	s.kill(t, v.WorkerPID, unix.SIGKILL)
	_ = s.anchor.Wait()
	awaitEnd(t, v.WorkerPID)
	s.start(t)
	c := s.awaitStopped(t, "c")
	testutil.Need(t, c.ExitCode != pidfd.Unknown, "PIDFD_INFO_EXIT (Linux 6.15)")
	if c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}

func TestStopLeavesContainersRunning(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", lines)
	awaitMore(t, log)
	s.stop(t)
	s.start(t)
	if c := s.awaitStopped(t, "c"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	wantLines(t, log, lines)
}
