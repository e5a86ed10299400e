package stdio

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// On a busy machine the time may be up before a reader has run at all.
func TestWhatWasWrittenIsCapturedHoweverLittleTimeThereIs(t *testing.T) {
	for n := range 200 {
		c, stdout, stderr := capture(t)
		write(t, stdout, "out")
		write(t, stderr, "error")
		c.Begin(4, nil)
		out, errors := c.End(-time.Second)
		if string(out) != "out" || string(errors) != "erro" {
			t.Fatalf("%d: %q, %q", n, out, errors)
		}
	}
}

func capture(t *testing.T) (c *Capture, stdout, stderr *os.File) {
	t.Helper()
	c, err := NewCapture()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	stdout, stderr = c.Child()
	return c, stdout, stderr
}

func write(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// program is a process that writes to what it was given, then ends.
func program(t *testing.T, stdout *os.File, text string) (ended <-chan error) {
	t.Helper()
	own, done := dup(t, stdout), make(chan error, 1)
	go func() {
		_, err := own.WriteString(text)
		done <- errors.Join(err, own.Close())
	}()
	return done
}

func TestLongOutputIsHandedOnAndItsEndReturned(t *testing.T) {
	const limit = 4*pieceSize + 10
	for size, want := range map[int]struct{ pieces, rest int }{
		pieceSize - 1: {0, pieceSize - 1}, pieceSize: {1, 0}, 3*pieceSize + 7: {3, 7}, limit: {5, 0}, limit + 2*pieceSize: {5, 0},
	} {
		var text strings.Builder
		for text.Len() < size {
			text.WriteString(time.Duration(text.Len()).String())
		}
		written := text.String()[:size]
		c, stdout, stderr := capture(t)
		ended := program(t, stdout, written)
		write(t, stderr, "short")
		var got strings.Builder
		pieces := 0
		c.Begin(limit, func(stream int, data []byte) error {
			if stream != 1 {
				t.Errorf("a piece of stream %d", stream)
			}
			pieces++
			_, err := got.Write(data)
			return err
		})
		if err := <-ended; err != nil {
			t.Error(err)
		}
		out, errOut := c.End(10 * time.Second)
		if pieces != want.pieces || len(out) != want.rest || got.String()+string(out) != written[:min(size, limit)] || string(errOut) != "short" {
			t.Errorf("%d bytes: %d pieces of %d bytes, then %d, %q", size, pieces, got.Len(), len(out), errOut)
		}
	}
}

func TestAProgramIsNotHeldUpWhereNobodyTakesItsOutput(t *testing.T) {
	c, stdout, _ := capture(t)
	ended := program(t, stdout, strings.Repeat("x", 20*pieceSize))
	pieces := 0
	c.Begin(100*pieceSize, func(int, []byte) error {
		pieces++
		return errors.New("gone")
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if out, _ := c.End(10 * time.Second); pieces != 1 || len(out) != 0 {
		t.Errorf("%d pieces, then %d bytes", pieces, len(out))
	}
}
