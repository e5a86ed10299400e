package main

import (
	"io"
	"sync/atomic"
)

// detachKeys let go of a container's terminal: ^P ^Q, as Docker's.
var detachKeys = [2]byte{'P' - '@', 'Q' - '@'}

// detacher is a person's keys. After the keys to detach it calls detach and ends
// no more: an end would be the container's.
type detacher struct {
	from     io.Reader
	detach   func()
	detached atomic.Bool
	held     bool // the first key has come
	over     bool // both have
}

// Read implements io.Reader. The first key waits for the one that follows.
func (d *detacher) Read(p []byte) (int, error) {
	if len(p) < 2 {
		return 0, io.ErrShortBuffer
	}
	for !d.over {
		// Room for the key that is held.
		n, err := d.from.Read(p[1:])
		out := p[:0]
		for _, key := range p[1 : 1+n] {
			if d.held && key == detachKeys[1] {
				d.over = true
				break
			}
			if d.held {
				out = append(out, detachKeys[0])
			}
			if d.held = key == detachKeys[0]; !d.held {
				out = append(out, key)
			}
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
	d.detached.Store(true)
	d.detach()
	select {}
}
