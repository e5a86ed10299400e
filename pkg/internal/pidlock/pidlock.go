// Package pidlock is a lock on a file that says which process to speak to: the one
// that serves while others stand by. The lock lasts as long as any process has
// the descriptor, and who serves may change meanwhile. One who waits in Take has
// one goroutine, which ends with the lock or the process.
package pidlock

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

// Open opens the lock at path, without taking it.
func Open(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// signature is what the lock's file holds.
type signature struct {
	PID   int    `json:"pid"`
	Begun uint64 `json:"begun"`
}

// Sign writes into the lock that this process serves.
func Sign(lock int) error {
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

// tell sends a signal to the process that has signed the lock.
func tell(lock int, sig unix.Signal) error {
	data := make([]byte, 256)
	n, err := unix.Pread(lock, data, 0)
	if err != nil {
		return err
	}
	var s signature
	if err := json.Unmarshal(data[:n], &s); err != nil {
		return err
	}
	fd, err := pidfd.Open(s.PID, s.Begun)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// Take waits for the lock, for as long as another process has it, and passes the
// signals that it gets on to that one, except SIGCHLD. It reports false where
// that was to end, as all signals but SIGUSR2 say, and the lock has come free;
// an error where that takes longer than limit.
func Take(lock int, signals <-chan os.Signal, limit time.Duration) (serve bool, err error) {
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return true, nil
	}
	slog.Info("another process serves, standing by", "pid", os.Getpid())
	taken := make(chan error, 1)
	go func() { taken <- awaitLock(lock) }() // ends with the process at the latest
	var pass unix.Signal
	var again, deadline <-chan time.Time
	for {
		select {
		case err := <-taken:
			return pass != unix.SIGTERM, err
		case <-deadline:
			return false, fmt.Errorf("the process that serves does not end: %w", errs.Timeout)
		case s := <-signals:
			switch {
			case s == syscall.SIGCHLD, pass == unix.SIGTERM:
				continue
			case s == syscall.SIGUSR2:
				pass = unix.SIGUSR2
			default:
				pass, deadline = unix.SIGTERM, time.After(limit)
			}
		case <-again:
		}
		again = nil
		if err := tell(lock, pass); err != nil { // it changes just now
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
