package flight

import (
	"io"
	"sync"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The phases of a Progress.
const (
	PhaseResolving   = "resolving"
	PhaseDownloading = "downloading"
	PhaseUnpacking   = "unpacking"
	PhaseDone        = "done"
	PhaseExists      = "exists"
)

// Progress is one step of a pull. Downloading and unpacking of a layer are one
// stream, so a layer is downloading until its last byte has come, unpacking
// until it is on disk, then done; exists says that it was here before.
type Progress struct {
	Digest        string // of the blob; empty while the name is resolved
	Offset, Total int64  // bytes of it
	Phase         string
}

// progressStep is how many bytes lie between two reports of one layer.
const progressStep = 256 << 10

// Reporter tells listeners, one call at a time. A nil Reporter tells nobody.
type Reporter struct {
	mu        sync.Mutex
	listeners map[int]func(Progress)
	next      int
}

// join adds a listener; the function that it returns takes it off again, after
// which it is not called any more.
func (r *Reporter) join(f func(Progress)) (leave func()) {
	if f == nil {
		return func() {}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.next
	r.next++
	if r.listeners == nil {
		r.listeners = map[int]func(Progress){}
	}
	r.listeners[id] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, id)
	}
}

// Tell tells all listeners.
func (r *Reporter) Tell(p Progress) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.listeners {
		f(p)
	}
}

// Layer tells how much of a layer is in which phase.
func (r *Reporter) Layer(d ispec.Descriptor, offset int64, phase string) {
	r.Tell(Progress{Digest: d.Digest.String(), Offset: offset, Total: d.Size, Phase: phase})
}

// Reader counts what comes of a blob, from offset on.
func (r *Reporter) Reader(in io.Reader, d ispec.Descriptor, offset int64) io.Reader {
	if r == nil {
		return in
	}
	r.Layer(d, offset, PhaseDownloading)
	return &countingReader{r: in, report: r, desc: d, offset: offset, told: offset}
}

type countingReader struct {
	r      io.Reader
	report *Reporter
	desc   ispec.Descriptor
	offset int64
	told   int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.offset += int64(n)
	switch {
	case err == io.EOF:
		c.report.Layer(c.desc, c.offset, PhaseUnpacking)
	case c.offset-c.told >= progressStep:
		c.told = c.offset
		c.report.Layer(c.desc, c.offset, PhaseDownloading)
	}
	return n, err
}
