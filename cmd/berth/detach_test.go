package main

import (
	"io"
	"testing"
	"testing/iotest"
)

func TestKeysPassUntilThoseThatDetach(t *testing.T) {
	for keys, want := range map[string]string{
		"ls\n\x10\x11ls": "ls\n", "\x10\x10a\x11": "\x10\x10a\x11", "a\x10b": "a\x10b", "\x11": "\x11", "\x10\x10\x11x": "\x10",
	} {
		for name, split := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "one by one": iotest.OneByteReader} {
			r, w := io.Pipe()
			detached := make(chan bool)
			d := &detacher{from: split(r), detach: func() { close(detached) }}
			got, over := make(chan byte, 100), make(chan bool)
			go func() {
				defer close(over)
				b := make([]byte, 16)
				for {
					n, err := d.Read(b)
					for _, key := range b[:n] {
						got <- key
					}
					if err != nil {
						return
					}
				}
			}()
			go func() { _, _ = io.WriteString(w, keys); w.Close() }()
			select {
			case <-detached:
			case <-over:
			}
			var text []byte
			for len(got) > 0 {
				text = append(text, <-got)
			}
			if string(text) != want {
				t.Errorf("%q %s: %q passed, want %q", keys, name, text, want)
			}
		}
	}
}
