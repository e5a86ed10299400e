package inside_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/network/inside"
	"github.com/berth-run/berth/test/testutil"
)

// greeter says hello to who connects at host, and returns its port.
func greeter(t *testing.T, host string) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from "+host)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return uint16(n)
}

func wantGreeting(t *testing.T, netns string, port uint16, from string) {
	t.Helper()
	c, err := inside.DialLoopback(t.Context(), netns, port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello from "+from {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDialTakesTheAddressThatListens(t *testing.T) {
	wantGreeting(t, "", greeter(t, "127.0.0.1"), "127.0.0.1")
	wantGreeting(t, "", greeter(t, "::1"), "::1")
}

func TestDialConnectsInsideTheNamespace(t *testing.T) {
	testutil.Root(t)
	pin := filepath.Join(t.TempDir(), "net")
	if err := os.WriteFile(pin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ports := make(chan [2]uint16)
	stay := make(chan struct{})
	go func() { // its thread stays in a namespace of its own, and ends with it
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		up(t)
		if err := unix.Mount("/proc/thread-self/ns/net", pin, "", unix.MS_BIND, ""); err != nil {
			t.Error(err)
		}
		ports <- [2]uint16{greeter(t, "127.0.0.1"), greeter(t, "::1")}
		<-stay
	}()
	defer close(stay)
	got := <-ports
	defer func() { _ = unix.Unmount(pin, unix.MNT_DETACH) }()
	wantGreeting(t, pin, got[0], "127.0.0.1")
	wantGreeting(t, pin, got[1], "::1")
	if c, err := inside.DialLoopback(t.Context(), "", got[0]); err == nil {
		c.Close()
		t.Error("the port is reachable outside of the namespace")
	}
}

// up sets the loopback device up, which brings its addresses.
func up(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err == nil {
		r.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestAMissingNamespaceIsAnError(t *testing.T) {
	if _, err := inside.DialLoopback(t.Context(), filepath.Join(t.TempDir(), "none"), 1); err == nil {
		t.Error("it connected")
	}
}
