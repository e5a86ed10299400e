// Package inside makes connections from inside a pod's network namespace, in
// this process: a thread enters the namespace, opens the socket and comes back.
// It keeps nothing.
package inside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// DialLoopback connects to a port of the pod's own addresses, 127.0.0.1 or else
// ::1. netns is the path of its network namespace, empty for the host's.
func DialLoopback(ctx context.Context, netns string, port uint16) (*net.TCPConn, error) {
	var conn net.Conn
	var err error
	dial := func() {
		for _, host := range []string{"127.0.0.1", "::1"} {
			var d net.Dialer
			var one error
			if conn, one = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); one == nil {
				err = nil
				return
			}
			err = errors.Join(err, one)
		}
	}
	if netns == "" {
		dial()
	} else if enterErr := in(netns, dial); enterErr != nil {
		return nil, enterErr
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// in calls f on a thread that is in the network namespace. A connection to one
// address is made on the caller's goroutine, and a socket stays in the namespace
// that it was made in.
func in(netns string, f func()) error {
	target, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error, 1)
	go func() { done <- enter(int(target.Fd()), f) }()
	return <-done
}

func enter(target int, f func()) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	f()
	// A thread that cannot come back stays locked and ends with this goroutine.
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return nil
}
