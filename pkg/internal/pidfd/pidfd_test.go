package pidfd

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child starts a script and returns its pid and pidfd.
func child(t *testing.T, script string) (pid, fd int) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", script)
	c.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Reap(fd); _ = unix.Close(fd) })
	return c.Process.Pid, fd
}

func TestTheEndIsSeenAndLeftUntilItIsReaped(t *testing.T) {
	w, err := OpenWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for script, want := range map[string]int32{"exit 7": 7, "kill -9 $$": 137} {
		_, fd := child(t, script)
		ended := make(chan struct{})
		w.Watch(fd, func() { close(ended) })
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the end is not seen", script)
		}
		for range 2 {
			if exit, err := Look(fd); exit != want || err != nil {
				t.Errorf("%s: got %d, %v", script, exit, err)
			}
		}
		Reap(fd)
		if _, err := Look(fd); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%s: after reaping: %v", script, err)
		}
	}
}

func TestANameMayHoldAnything(t *testing.T) {
	const name = "a) Z 1 ("
	pid, fd := child(t, "printf '"+name+"' > /proc/$$/comm; while :; do sleep 0.1; done")
	defer func() { _ = Signal(fd, unix.SIGKILL) }()
	var got Stat
	for range 2000 {
		var err error
		if got, err = Read(pid); err != nil {
			t.Fatal(err)
		}
		if got.Name == name {
			break
		}
		<-time.After(time.Millisecond)
	}
	since, err := Begun(pid)
	if got.Name != name || got.State == 'Z' || got.Parent != os.Getpid() || got.Begun != since || err != nil {
		t.Errorf("got %+v, begun %d, %v", got, since, err)
	}
}

func TestAnotherProcessOfThatNumberIsNotOpened(t *testing.T) {
	pid := os.Getpid()
	since, err := Begun(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Open(pid, since)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	if _, err := Open(pid, since+1); !errors.Is(err, unix.ESRCH) {
		t.Errorf("got %v", err)
	}
}

func TestAChildThatLivesHasNoExit(t *testing.T) {
	_, fd := child(t, "exec sleep 1000")
	if _, err := Look(fd); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v", err)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
	if err := AwaitEnd(t.Context(), fd); err != nil {
		t.Error(err)
	}
}

func TestTheEndIsSeenWhereTheKernelCannotWatch(t *testing.T) {
	w, err := OpenWatcher()
	if err != nil {
		t.Fatal(err)
	}
	_, fd := child(t, "exec sleep 1000")
	_, other := child(t, "exec sleep 1000")
	ended := make(chan int, 4)
	w.Watch(fd, func() { ended <- 1 })
	w.Watch(fd, func() { ended <- 2 }) // EEXIST
	w.Watch(other, func() { ended <- 3 })
	w.Watch(other, func() { ended <- 4 })
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case n := <-ended:
			if n > 2 {
				t.Errorf("call %d", n)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("an end is not seen")
		}
	}
	w.Close()
	if len(ended) > 0 {
		t.Errorf("call %d", <-ended)
	}
	if err := unix.PidfdSendSignal(other, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(other), Events: unix.POLLIN}}, 20_000); err != nil {
		t.Error(err)
	}
}
