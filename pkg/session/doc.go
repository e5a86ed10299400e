// Package session connects a client, whose ends are streams, with a process of
// a container, whose ends are files that berth-runtime has:
//
//	client ──Stdin──▶ copy ──pipe──────────▶ process      (exec: the pipe is its stdin)
//	client ◀─Stdout── copy ◀─pipe──────────  process
//	client ◀────────▶ copy ◀─terminal's master─▶ process  (exec with a terminal)
//	client ◀────────▶ copy ◀─pipes─▶ berth-runtime ◀─▶ container   (attach)
//
// Exec loses no byte: a client that does not read holds up its own exec, and
// what a program wrote before it ended is delivered after its end. A program that
// closes one stream has no effect on the others. An attached client that does
// not read loses output, since it must not hold up a container.
//
// A session ends with the process or with its context, which is to end when the
// client has gone; the process then sees its ends closed (a terminal hangs up)
// and is not killed. Goroutines: one for each stream of a session. They end with
// it, or where they are in a Read or Write of the client, when its connection is
// closed.
package session

import (
	"context"
	"io"
)

// Size is that of a terminal.
type Size struct{ Width, Height uint16 }

// Streams are a client's ends; nil leaves one out. The outputs are closed when
// nothing follows.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.WriteCloser
	// Terminal tells that there is one; Stderr is then nil, and Sizes, which may be
	// nil, brings its sizes.
	Terminal bool
	Sizes    <-chan Size
}

// sizes calls set with each size until ctx ends.
func sizes(ctx context.Context, from <-chan Size, set func(Size)) {
	for {
		select {
		case s, ok := <-from:
			if !ok {
				return
			}
			if s.Width > 0 && s.Height > 0 {
				set(s)
			}
		case <-ctx.Done():
			return
		}
	}
}

// closeOutput ends an output of the client, which may be none.
func closeOutput(w io.WriteCloser) {
	if w != nil {
		_ = w.Close() // a client that has gone needs no end
	}
}
