package pidlock

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// held is a lock that this process has signed, and one more descriptor of it.
func held(t *testing.T) (first, second int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lock")
	for _, fd := range []*int{&first, &second} {
		var err error
		if *fd, err = Open(path); err != nil {
			t.Fatal(err)
		}
	}
	if serve, err := Take(first, nil, time.Minute); !serve || err != nil {
		t.Fatal(serve, err)
	}
	if err := Sign(first); err != nil {
		t.Fatal(err)
	}
	return first, second
}

func TestWhoWaitsServesOnceTheLockIsFree(t *testing.T) {
	first, second := held(t)
	taken := make(chan bool)
	go func() {
		serve, err := Take(second, nil, time.Minute)
		taken <- serve && err == nil
	}()
	if err := unix.Close(first); err != nil {
		t.Fatal(err)
	}
	if !<-taken {
		t.Error("it does not serve")
	}
	_ = unix.Close(second)
}

func TestWhoWaitsPassesSignalsOn(t *testing.T) {
	first, second := held(t)
	defer unix.Close(first)
	got := make(chan os.Signal, 4)
	signal.Notify(got, unix.SIGUSR2, unix.SIGTERM)
	defer signal.Stop(got)
	signals := make(chan os.Signal)
	ended := make(chan error, 1)
	go func() {
		_, err := Take(second, signals, 50*time.Millisecond)
		ended <- err
	}()
	for _, sig := range []os.Signal{unix.SIGUSR2, unix.SIGTERM} {
		signals <- unix.SIGCHLD
		signals <- sig
		if s := <-got; s != sig {
			t.Errorf("got %v, want %v", s, sig)
		}
	}
	if err := <-ended; !errors.Is(err, errs.Timeout) {
		t.Errorf("got %v", err)
	}
}
