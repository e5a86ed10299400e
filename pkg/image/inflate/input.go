package inflate

import (
	"errors"
	"io"
)

const (
	// maxHeld is how many bytes a decoder may ask for at once.
	maxHeld = 1 << 10
	// inputPad is how far C reads beyond what it was given: BERTH_PAD.
	inputPad = 64
)

// input is a compressed stream on its way into a decoder, in one buffer.
type input struct {
	r       io.Reader
	buf     []byte
	at, end int   // what is there and not used yet
	offset  int64 // of at, in the stream
	ended   bool
	err     error // of r itself
	empty   int   // reads in a row that gave nothing
}

func newInput(r io.Reader) *input {
	return &input{r: r, buf: make([]byte, maxHeld+piece+inputPad)}
}

// rest returns what is there.
func (in *input) rest() []byte { return in.buf[in.at:in.end] }

// skip uses up n bytes of rest.
func (in *input) skip(n int) {
	in.at += n
	in.offset += int64(n)
}

// more reads what comes next behind what is there, which must leave room; it
// answers io.EOF once the stream has ended.
func (in *input) more() error {
	if in.err != nil {
		return in.err
	}
	if in.ended {
		return io.EOF
	}
	in.end = copy(in.buf, in.rest())
	in.at = 0
	for {
		n, err := in.r.Read(in.buf[in.end : len(in.buf)-inputPad])
		in.end += n
		switch {
		case errors.Is(err, io.EOF):
			in.ended = true
		case err != nil:
			in.err = err
		}
		switch {
		case n > 0:
			in.empty = 0
			return nil
		case in.ended:
			return io.EOF
		case err != nil:
			return err
		}
		if in.empty++; in.empty == 100 {
			in.err = io.ErrNoProgress
			return in.err
		}
	}
}

// peek returns the next n bytes, or fewer where the stream ends.
func (in *input) peek(n int) ([]byte, error) {
	for in.end-in.at < n {
		if err := in.more(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return in.buf[in.at:min(in.at+n, in.end)], nil
}

// ReadByte implements io.ByteReader.
func (in *input) ReadByte() (byte, error) {
	b, err := in.peek(1)
	if err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	in.skip(1)
	return b[0], nil
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if len(in.rest()) == 0 {
		if err := in.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.rest())
	in.skip(n)
	return n, nil
}
