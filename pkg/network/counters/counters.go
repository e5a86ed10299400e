// Package counters reads what went through the interfaces of other network
// namespaces.
//
// It keeps no state and no namespace: a socket that stays open in one would keep
// it, and its interfaces, alive after the pod.
package counters

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Interface is one network interface and what it has carried.
type Interface struct {
	Name                  string
	Received, Transmitted Traffic
}

// Traffic is one direction.
type Traffic struct{ Bytes, Packets, Errors, Dropped uint64 }

// Read returns the interfaces of each namespace, by its path, without loopback.
// One that is gone, or cannot be read, is not in the result. The thread that has
// visited them ends.
func Read(namespaces []string) map[string][]Interface {
	if len(namespaces) == 0 {
		return nil
	}
	done := make(chan map[string][]Interface)
	go visit(namespaces, done)
	return <-done
}

// visit goes from one namespace to the next on a thread that nobody uses
// afterwards. The first thread of the process would not end.
func visit(namespaces []string, done chan<- map[string][]Interface) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		other := make(chan map[string][]Interface)
		go visit(namespaces, other) // on another thread, since this one is taken
		done <- <-other
		return
	}
	all := make(map[string][]Interface, len(namespaces))
	buf := make([]byte, 16<<10)
	for _, path := range namespaces {
		if err := enter(path); err != nil {
			continue // the pod is being stopped
		}
		n, err := readFile("/proc/thread-self/net/dev", buf)
		if err == nil {
			all[path] = parse(buf[:n])
		}
	}
	done <- all
}

func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network namespace %s: %w", path, err)
	}
	return nil
}

// readFile reads as much as fits: some hundred interfaces.
func readFile(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// parse reads the lines of /proc/net/dev:
//
//	Inter-|   Receive                                                |  Transmit
//	 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
//	  eth0: 1786     21    0    0    0     0          0         0     1586      19    0    0    0     0       0          0
//
// A last line that was cut off is left out.
func parse(data []byte) []Interface {
	var all []Interface
	for {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole {
			return all
		}
		data = rest
		at := bytes.LastIndexByte(line, ':') // an alias has one in its name
		if at < 0 {
			continue
		}
		name := string(bytes.TrimSpace(line[:at]))
		fields := bytes.Fields(line[at+1:])
		if len(fields) < 12 || name == "lo" {
			continue
		}
		all = append(all, Interface{Name: name, Received: traffic(fields), Transmitted: traffic(fields[8:])})
	}
}

func traffic(f [][]byte) Traffic {
	var n [4]uint64
	for i := range n {
		n[i], _ = strconv.ParseUint(string(f[i]), 10, 64) // the kernel prints numbers
	}
	return Traffic{Bytes: n[0], Packets: n[1], Errors: n[2], Dropped: n[3]}
}
