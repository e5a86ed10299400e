package main

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

func TestCheckVerifyTellsOfDamageOnce(t *testing.T) {
	d := startDaemon(t)
	d.problems = []*apiv1.Problem{{Store: "image", Object: "layer damaged", What: "was damaged", Repaired: true}}
	if got := d.ok(t, "check", "--verify", "--repair"); strings.Count(got, "layer damaged") != 1 || !strings.Contains(got, "where 2 were made") {
		t.Errorf("check --verify --repair: %s", got)
	}
	d.problems = append(d.problems, &apiv1.Problem{Store: "image", Object: "image x", What: "lacks a layer"})
	if got := d.fails(t, "check", "--verify", "--repair"); !strings.Contains(got, "1 problem could not be repaired") {
		t.Errorf("an image that is not whole: %s", got)
	}
	d.problems = nil
	if got := d.fails(t, "check", "--verify"); !strings.Contains(got, "found 1 problem") {
		t.Errorf("check --verify: %s", got)
	}
}

func TestVerifyDrawsABarOnATerminal(t *testing.T) {
	person, program := pty(t)
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	drawn := make(chan string)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), "image layer 123456789012") {
			n, err := person.Read(buf)
			if err != nil {
				break
			}
			all.Write(buf[:n])
		}
		drawn <- all.String()
		_, _ = io.Copy(io.Discard, person) // ends with the terminal
	}()
	r := newReading(program, false)
	r.show(&apiv1.VerifyProgress{Store: "image", Object: "layer sha256:" + strings.Repeat("1234567890", 7)[:64], Done: 500_000, Total: 2_000_000})
	if got := <-drawn; !strings.Contains(got, "500.0 KB") && !strings.Contains(got, "0.5 MB") {
		t.Errorf("drawn: %q", got)
	}
	r.end()
	if quiet := newReading(program, true); quiet.bars != nil {
		t.Error("a bar in spite of --quiet")
	}
}
