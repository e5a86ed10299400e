package digester

import (
	"runtime"
	"testing"
)

func waits() *job { return &job{wake: make(chan bool, 1)} }

// check compares what p has come to.
func check(t *testing.T, p *pool, leaders, alone, waiting int) {
	t.Helper()
	if p.leaders != leaders || p.alone != alone || len(p.waiting) != waiting {
		t.Fatalf("%d leaders, %d alone, %d waiting; want %d, %d, %d", p.leaders, p.alone, len(p.waiting), leaders, alone, waiting)
	}
}

// told returns whether j was woken, and what for.
func told(j *job) string {
	select {
	case lead := <-j.wake:
		if lead {
			return "leads"
		}
		return "done"
	default:
		return "waits"
	}
}

func TestLateWriterIsTakenAlong(t *testing.T) {
	p, a, b := &pool{}, waits(), waits()
	if p.wait(a) || p.next() != nil {
		t.Fatal("the first one is not alone")
	}
	if !p.wait(b) || p.next() != b {
		t.Fatal("the second one was not taken")
	}
	check(t, p, 1, 0, 0)
	p.done(b)
	check(t, p, 1, 1, 0)
	if told(b) != "done" {
		t.Error("it was not told")
	}
	p.leave(nil)
	check(t, p, 0, 0, 0)
}

func TestWhoeverIsLeftLeads(t *testing.T) {
	p, a, b, c := &pool{}, waits(), waits(), waits()
	p.wait(a)
	p.wait(b)
	p.next()
	if !p.wait(c) {
		t.Fatal("the third one did not wait")
	}
	p.leave(b) // a is hashed, b is not
	if told(b) != "leads" || told(c) != "waits" {
		t.Fatal("who was begun is not the next")
	}
	if p.next() != c {
		t.Fatal("the third one was not taken")
	}
	p.leave(c)
	if told(c) != "leads" {
		t.Fatal("the last one was left")
	}
	p.leave(nil)
	check(t, p, 0, 0, 0)
}

func TestWaitingPairTakesAnotherCore(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	p := &pool{}
	p.wait(waits())
	p.wait(waits())
	p.next()
	check(t, p, 1, 0, 0)
	if !p.wait(waits()) || p.wait(waits()) {
		t.Fatal("the fourth one does not lead")
	}
	p.next()
	check(t, p, 2, 0, 0)
	for range 4 {
		if !p.wait(waits()) {
			t.Fatal("more lead than there are cores")
		}
	}
	check(t, p, 2, 0, 4)
}
