package stdio

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// terminal is a container with a terminal, whose slave end the test opens.
func terminal(t *testing.T) (s *Stdio, slave, log string) {
	t.Helper()
	dir := t.TempDir()
	p, err := OpenPump(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	p.Run()
	t.Cleanup(p.Close)
	log = filepath.Join(dir, "0.log")
	s, err = p.Prepare(Config{ID: "c", Dir: dir, LogPath: log, Terminal: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(int(s.child.Console.Fd()), []byte("tty"), unix.UnixRights(master), nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(master)
	slave = fmt.Sprintf("/dev/pts/%d", n)
	return s, slave, log
}

// openSlave opens the container's end; what is written there is not changed.
func openSlave(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	attr, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	attr.Oflag &^= unix.OPOST
	attr.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, attr); err != nil {
		t.Fatal(err)
	}
	return f
}

// text joins what the log's records say.
func text(t *testing.T, log string) string {
	t.Helper()
	var b strings.Builder
	for _, line := range texts(t, log) {
		tag, text, _ := strings.Cut(strings.TrimPrefix(line, "stdout "), " ")
		b.WriteString(text)
		if tag == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func awaitText(t *testing.T, log, want string) {
	t.Helper()
	testutil.Await(t, 5*time.Second, func() error {
		if got := text(t, log); got != want {
			return fmt.Errorf("log says %q, want %q", got, want)
		}
		return nil
	})
}

func TestTerminalShowsEachKeystrokeOfALongLine(t *testing.T) {
	s, path, log := terminal(t)
	slave := openSlave(t, path)
	defer slave.Close()
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Attach(ctx, AttachIO{Stdout: theirs}, func() {}) }()
	defer func() { cancel(); <-ended }()
	testutil.Await(t, 5*time.Second, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.clients) == 0 {
			return fmt.Errorf("nobody is attached")
		}
		return nil
	})
	// A FIFO has 16 slots, and each keystroke takes one.
	line := strings.Repeat("0123456789", 10)
	for i := range line {
		if _, err := slave.Write([]byte(line[i : i+1])); err != nil {
			t.Fatal(err)
		}
		if err := ours.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 1)
		if _, err := ours.Read(echo); err != nil || !bytes.Equal(echo, []byte(line[i:i+1])) {
			t.Fatalf("keystroke %d: the client sees %q, %v", i, echo, err)
		}
	}
	if _, err := slave.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	awaitText(t, log, line+"\n")
}

func TestTerminalThatIsOpenedAgainIsReadOn(t *testing.T) {
	s, path, log := terminal(t)
	slave := openSlave(t, path)
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(slave, "one\n")
	awaitText(t, log, "one\n")
	slave.Close()
	// The pump has seen it closed: what it is asked comes after.
	testutil.Await(t, 5*time.Second, func() error {
		if !ready(s.tty, unix.POLLHUP) {
			return fmt.Errorf("the terminal is open")
		}
		return nil
	})
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	slave = openSlave(t, path)
	fmt.Fprint(slave, "two\nlast")
	awaitText(t, log, "one\ntwo\n")
	slave.Close()
	s.Drain()
	awaitText(t, log, "one\ntwo\nlast")
}
