package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRunGivesATerminal(t *testing.T) {
	name := named(t)
	c, person, screen, read := at(t, 33, 77, "run", "--rm", "-it", "--name", name, busybox, "/bin/sh")
	wantTerminal(t, person, screen)
	if _, err := person.WriteString("exit 3\n"); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, c.Wait()); code != 3 {
		t.Errorf("exit %d: %s", code, screen.String())
	}
	<-read
	if strings.Contains(screen.String(), "\n") && !strings.Contains(screen.String(), "\r\n") {
		t.Errorf("no terminal wrote %q", screen.String())
	}
	if got := try(t, "", "run", "--rm", "-it", busybox, "true"); got.code != 125 || !strings.Contains(got.stderr, "terminal") {
		t.Errorf("-t without a terminal: %v", got)
	}
}

// at runs the command on a person's terminal of the given size. read is closed once
// all that the person sees is read.
func at(t *testing.T, rows, columns uint16, args ...string) (c *exec.Cmd, person *os.File, screen *lockedBuffer, read <-chan struct{}) {
	t.Helper()
	person, theirs := terminal(t)
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	c = berth.Command(t.Context(), args...)
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	screen, read = look(person)
	return c, person, screen, read
}

// wantTerminal wants a shell with a terminal of its own, of 33 by 77 first and of
// the size that it is given then.
func wantTerminal(t *testing.T, person *os.File, screen *lockedBuffer) {
	t.Helper()
	typed := func(keys, want string) {
		t.Helper()
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return wantText(screen.String(), want) })
	}
	typed("echo size $(stty size)\n", "size 33 77")
	typed("tty\n", "/dev/pts/0")
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 90}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		typed("echo now $(stty size)\n", "now ")
		return wantText(screen.String(), "now 20 90")
	})
	// What it writes shows that the terminal is its own, where ^C is a signal.
	typed("sh -c 'echo asleep $((20+3)); exec sleep 1000'\n", "asleep 23")
	typed("\x03", "^C")
	typed("echo $((1300+37))\n", "1337")
}

// look reads what a person sees until the other side is closed.
func look(person *os.File) (*lockedBuffer, <-chan struct{}) {
	screen, read := &lockedBuffer{}, make(chan struct{})
	go func() {
		defer close(read)
		_, _ = screen.ReadFrom(person) // fails when the other side is closed
	}()
	return screen, read
}

// terminal makes a pseudo terminal: a person's side and a program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}
