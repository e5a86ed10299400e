package main

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// pty makes a pseudo terminal: a person's side and a program's.
func pty(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// The race detector sees whether the bars are drawn from what is being changed.
func TestProgressIsDrawnWhileItGoesOn(t *testing.T) {
	person, program := pty(t)
	go func() { _, _ = io.Copy(io.Discard, person) }() // ends with the terminal
	p := (&app{errOut: program}).newProgress(false)
	if p.bars == nil {
		t.Fatal("no bars on a terminal")
	}
	for began, i := time.Now(), int64(0); time.Since(began) < 400*time.Millisecond; i++ {
		for _, phase := range []string{"downloading", "unpacking"} {
			p.show(&apiv1.PullProgress{Digest: fmt.Sprintf("sha256:%012d", i%3), Phase: phase, Offset: i % 1000, Total: 1000})
		}
	}
	p.end()
}
