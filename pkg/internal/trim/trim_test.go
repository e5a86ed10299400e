package trim

import (
	"testing"
	"testing/synctest"
	"time"
)

var kept []byte

// garbage allocates and drops so many bytes.
func garbage(bytes int) { kept = make([]byte, bytes); kept = nil }

// trimmed is what had been allocated at the last trim.
func (t *Trimmer) trimmed() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

func TestTrimsOnceQuietAndOnlyWhenWorthwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr Trimmer
		garbage(2 * worthwhile)
		tr.Touch()
		time.Sleep(quiet - time.Millisecond)
		if tr.trimmed() != 0 {
			t.Error("trimmed before it was quiet")
		}
		tr.Touch()
		time.Sleep(quiet + time.Millisecond)
		first := tr.trimmed()
		if first == 0 {
			t.Fatal("not trimmed although it was quiet")
		}
		tr.Touch()
		time.Sleep(quiet + time.Millisecond)
		if tr.trimmed() != first {
			t.Error("trimmed although there was nothing to gain")
		}
	})
}

func TestTrimsWhenItIsNeverQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr Trimmer
		garbage(2 * worthwhile)
		for range int(patience/quiet) * 4 {
			tr.Touch()
			time.Sleep(quiet / 2)
		}
		if tr.trimmed() == 0 {
			t.Error("never trimmed")
		}
	})
}
