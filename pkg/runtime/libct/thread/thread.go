// Package thread runs code on a thread of the process that nobody else uses
// afterwards, because the code has moved it to other namespaces. It keeps no state.
package thread

import (
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// Spoil calls f on such a thread, which ends with it, and returns its error. The
// first thread of the process would not end; it is never taken.
func Spoil(f func() error) error {
	done := make(chan error, 1)
	go run(f, done)
	return <-done
}

func run(f func() error, done chan<- error) {
	goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		done <- f()
		return
	}
	defer goruntime.UnlockOSThread()
	other := make(chan error)
	go run(f, other) // on another thread, since this one is taken
	done <- <-other
}
