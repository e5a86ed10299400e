package harness

import (
	"io"
	"os/exec"
	"testing"
)

func TestMemoryIsTheSumOfThePrograms(t *testing.T) {
	d := &Daemon{}
	for range 2 {
		d.commands = append(d.commands, settled(t))
	}
	one := &Daemon{commands: d.commands[:1]}
	if err := d.ForgetHighRSS(); err != nil {
		t.Fatal(err)
	}
	both, err1 := d.Memory()
	alone, err2 := one.Memory()
	high, err3 := d.HighRSS()
	resident, err4 := d.RSS()
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		t.Fatal(err1, err2, err3, err4)
	}
	if both.PSS <= alone.PSS || both.RSS <= alone.RSS || alone.PSS > alone.RSS {
		t.Errorf("both %+v, one %+v", both, alone)
	}
	// The kernel counts in batches.
	if near := int64(1 << 20); high < both.RSS-near || resident < both.RSS-near || resident > both.RSS+near {
		t.Errorf("highest %d, now %d, by its pages %d", high, resident, both.RSS)
	}
}

// settled returns a program that has started, and waits for more to do.
func settled(t *testing.T) *exec.Cmd {
	t.Helper()
	c := exec.Command("cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		_ = c.Wait()
	})
	if _, err := in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}
