//go:build cgo

package inflate

// #cgo CFLAGS: -O3
// #cgo noescape berth_inflate
// #cgo nocallback berth_inflate
// #include "deflate.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/berth-run/berth/pkg/errs"
)

// history is how far back a match may reach.
const history = C.BERTH_HISTORY

// deflate decodes one member's body with deflate.c. All memory is Go's; C holds
// none of it between calls.
type deflate struct {
	in    *input
	c     C.struct_berth_inflate
	buf   []byte // history, then what is decoded, then room
	start int    // of this member's history in buf
	end   int    // of what is decoded in buf
	own   []byte // buf where no other was given, once it is needed
	done  bool
}

func newDeflate(in *input) *deflate { return &deflate{in: in} }

// reset begins a member.
func (d *deflate) reset() {
	d.c.bits, d.c.nbits, d.c.phase, d.c.final, d.c.stored = 0, 0, 0, 0, 0
	d.start, d.done = d.end, false
}

// full reports whether buf has no room left.
func (d *deflate) full() bool { return d.end+C.BERTH_ROOM >= len(d.buf) }

// place goes on in buf, behind the history, which may lie in buf too.
func (d *deflate) place(buf []byte) int {
	n := copy(buf, d.buf[max(d.start, d.end-history):d.end])
	d.buf, d.start, d.end = buf, 0, n
	return n
}

// ended reports whether the member's last block has ended.
func (d *deflate) ended() bool { return d.done }

// next decodes at least one byte, or to the member's end.
func (d *deflate) next() ([]byte, error) {
	if d.full() {
		if d.own == nil {
			d.own = make([]byte, history+piece+C.BERTH_ROOM)
		}
		d.place(d.own)
	}
	began := d.end
	for d.end == began {
		in := d.in.rest()
		last := C.int(0)
		if d.in.ended {
			last = 1
		}
		result := C.berth_inflate(&d.c, (*C.uint8_t)(unsafe.SliceData(d.in.buf[d.in.at:])), C.size_t(len(in)), last,
			(*C.uint8_t)(unsafe.SliceData(d.buf[d.start:])), C.size_t(d.end-d.start), C.size_t(len(d.buf)-d.start))
		switch result {
		case C.BERTH_CORRUPT:
			return nil, errDeflate
		case C.BERTH_TRUNCATED:
			return nil, io.ErrUnexpectedEOF
		}
		d.in.skip(int(d.c.used))
		d.end += int(d.c.made)
		switch result {
		case C.BERTH_END:
			d.done = true
			return d.buf[began:d.end], nil
		case C.BERTH_MORE_IN:
			// What was decoded is passed on first: more may block.
			if d.end > began {
				return d.buf[began:d.end], nil
			}
			if err := d.in.more(); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
		}
	}
	return d.buf[began:d.end], nil
}

// save returns where the member can be gone on with after what next returned.
func (d *deflate) save() *member {
	m := &member{
		Bits: uint32(d.c.bits), BitsLen: uint32(d.c.nbits), Phase: uint32(d.c.phase), Final: uint32(d.c.final), Stored: uint32(d.c.stored),
		Lengths: make([]byte, len(d.c.lengths)),
		History: append([]byte(nil), d.buf[max(d.start, d.end-history):d.end]...),
	}
	for n, l := range d.c.lengths {
		m.Lengths[n] = byte(l)
	}
	return m
}

// restore goes on where save was called.
func (d *deflate) restore(m *member) error {
	if len(m.Lengths) != len(d.c.lengths) || len(m.History) > history {
		return fmt.Errorf("state of a decoder is damaged: %w", errs.Unsupported)
	}
	d.c.bits, d.c.nbits, d.c.phase = C.uint32_t(m.Bits), C.uint32_t(m.BitsLen), C.uint32_t(m.Phase)
	d.c.final, d.c.stored = C.uint32_t(m.Final), C.uint32_t(m.Stored)
	for n, l := range m.Lengths {
		d.c.lengths[n] = C.uint8_t(l)
	}
	if C.berth_inflate_restore(&d.c) == 0 {
		return fmt.Errorf("state of a decoder is damaged: %w", errs.Unsupported)
	}
	d.buf, d.start, d.end, d.done = m.History, 0, len(m.History), false
	return nil
}
