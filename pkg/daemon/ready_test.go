package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSystemdIsToldOnceRequestsAreServed(t *testing.T) {
	for kind, name := range map[string]string{"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@berth-ready-%d", os.Getpid())} {
		t.Run(kind, func(t *testing.T) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			t.Setenv("NOTIFY_SOCKET", name)
			c := testConfig(t)
			told := make(chan string, 1)
			go func() {
				buf := make([]byte, 100)
				n, _ := l.Read(buf) // the deadline ends it
				conn, err := net.Dial("unix", c.Socket())
				if err != nil {
					told <- "told before: " + err.Error()
					return
				}
				conn.Close()
				told <- string(buf[:n])
			}()
			if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			run(t, Options{Config: c})
			if got := <-told; got != "READY=1" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestWithoutSystemdNobodyIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := ready(); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := ready(); err == nil {
		t.Error("nobody listens, and no error")
	}
}
