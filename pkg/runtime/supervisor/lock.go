package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
)

// openLock opens the lock of the state directory. The lock lasts as long as any
// process has the descriptor, and the file says who the anchor is.
func openLock(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// signature is what the lock's file holds.
type signature struct {
	Anchor int    `json:"anchor"`
	Begun  uint64 `json:"begun"`
}

// sign writes into the lock that this process is the anchor.
func sign(lock int) error {
	since, err := pidfd.Begun(os.Getpid())
	if err != nil {
		return err
	}
	data, err := json.Marshal(&signature{os.Getpid(), since})
	if err == nil {
		err = unix.Ftruncate(lock, 0)
	}
	if err == nil {
		_, err = unix.Pwrite(lock, data, 0)
	}
	if err != nil {
		return fmt.Errorf("sign lock: %w", err)
	}
	return nil
}

// signalHolder sends a signal to the anchor that has signed the lock.
func signalHolder(lock int, sig unix.Signal) error {
	data := make([]byte, 256)
	n, err := unix.Pread(lock, data, 0)
	if err != nil {
		return err
	}
	var s signature
	if err := json.Unmarshal(data[:n], &s); err != nil {
		return err
	}
	fd, err := pidfd.Open(s.Anchor, s.Begun)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// takeLock waits for the lock, for as long as another berth-runtime has it. That
// is one whose anchor was a worker before: a supervisor of services that knows
// only the dead anchor then starts this process, and speaks to it from now on.
// So it passes on what it is told. It reports false where that was to end, and
// all have ended.
func takeLock(lock int, signals <-chan os.Signal) (serve bool, err error) {
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return true, nil
	}
	slog.Info("another berth-runtime serves, standing by", "pid", os.Getpid())
	taken := make(chan error, 1)
	go func() { taken <- awaitLock(lock) }() // ends with the process at the latest
	var pass unix.Signal
	var again, deadline <-chan time.Time
	for {
		select {
		case err := <-taken:
			return pass != unix.SIGTERM, err
		case <-deadline:
			return false, fmt.Errorf("the other berth-runtime does not end: %w", errs.Timeout)
		case s := <-signals:
			switch {
			case s == syscall.SIGCHLD, pass == unix.SIGTERM:
				continue
			case s == syscall.SIGUSR2:
				pass = unix.SIGUSR2
			default:
				pass, deadline = unix.SIGTERM, time.After(2*stopLimit)
			}
		case <-again:
		}
		again = nil
		if err := signalHolder(lock, pass); err != nil { // a worker is becoming the anchor
			again = time.After(100 * time.Millisecond)
		}
	}
}

func awaitLock(lock int) error {
	for {
		if err := unix.Flock(lock, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
