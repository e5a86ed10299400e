package vm

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// newDisk makes a disk of some physical sectors, each full of its old content, 1.
func newDisk(t *testing.T, sectors int) *Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(path, bytes.Repeat([]byte{1}, sectors*physical), 0o600))
	d, err := OpenDisk(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes sectors of one content.
func (d *Disk) put(t *testing.T, at, sectors int, content byte) {
	t.Helper()
	must(t, d.write(bytes.Repeat([]byte{content}, sectors*physical), int64(at)*physical))
}

// get returns the content of each sector, none of which may be torn.
func (d *Disk) get(t *testing.T) []byte {
	t.Helper()
	all := make([]byte, d.size)
	must(t, d.read(all, 0))
	var out []byte
	for at := 0; at < len(all); at += physical {
		if n := bytes.Count(all[at:at+physical], all[at:at+1]); n != physical {
			t.Fatalf("sector %d is torn", at/physical)
		}
		out = append(out, all[at])
	}
	return out
}

func TestAGuestReadsWhatItHasWritten(t *testing.T) {
	d := newDisk(t, 8)
	d.put(t, 0, 4, 2)
	d.put(t, 2, 4, 3)
	if got := d.get(t); !bytes.Equal(got, []byte{2, 2, 3, 3, 3, 3, 1, 1}) {
		t.Errorf("before the flush: %v", got)
	}
	must(t, d.flush())
	if got := d.get(t); !bytes.Equal(got, []byte{2, 2, 3, 3, 3, 3, 1, 1}) {
		t.Errorf("after the flush: %v", got)
	}
}

func TestADiskStopsAtSoManyUnflushedWrites(t *testing.T) {
	d := newDisk(t, 8)
	stopped := d.StopAt(2)
	d.put(t, 0, 1, 2)
	must(t, d.flush())
	d.put(t, 1, 1, 2)
	if d.dead() {
		t.Error("it stops too early")
	}
	d.put(t, 2, 1, 2)
	if !d.dead() {
		t.Error("it does not stop")
	}
	<-stopped
	if _, err := d.PowerCut(rand.New(rand.NewPCG(1, 1))); err != nil || d.dead() {
		t.Errorf("after the cut it does not work again: %v", err)
	}
}

// TestAPowerCutLosesOnlyWhatWasNotFlushed cuts the power many times, and sees
// every kind of loss: none, all, the last, one in the middle, half a write.
func TestAPowerCutLosesOnlyWhatWasNotFlushed(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(400) {
		d := newDisk(t, 8)
		d.put(t, 0, 2, 2)
		must(t, d.flush())
		d.put(t, 2, 2, 3)
		d.put(t, 4, 2, 4)
		d.put(t, 6, 2, 5)
		c, err := d.PowerCut(rand.New(rand.NewPCG(seed, 0)))
		must(t, err)
		if c.Unflushed != 3 || c.Flushes != 1 || c.Writes != 4 {
			t.Fatalf("cut: %+v", c)
		}
		got := d.get(t)
		if got[0] != 2 || got[1] != 2 {
			t.Fatalf("seed %d: lost what was flushed: %v", seed, got)
		}
		lost := int64(bytes.Count(got, []byte{1})) * physical
		if lost != c.Lost {
			t.Fatalf("seed %d: %d bytes are lost, and %d were told of", seed, lost, c.Lost)
		}
		seen[string(got[2:])] = true
		seen["half a write"] = seen["half a write"] || got[2] != got[3] || got[4] != got[5] || got[6] != got[7]
	}
	for what, pattern := range map[string]string{
		"nothing": "\x03\x03\x04\x04\x05\x05", "all": "\x01\x01\x01\x01\x01\x01", "the last": "\x03\x03\x04\x04\x01\x01",
		"one in the middle": "\x03\x03\x01\x01\x05\x05", "half a write": "half a write",
	} {
		if !seen[pattern] {
			t.Errorf("no cut has lost %s", what)
		}
	}
}
