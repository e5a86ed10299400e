package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Line is what lies between the registry and who pulls. The zero value is fast.
type Line struct {
	Latency   time.Duration // before each answer
	Bandwidth int64         // bytes a second of each blob, so of each connection; 0 means no limit
}

// Fault is what goes wrong with some requests for blobs, or with uploads where it can
// there. Each field that is set
// counts by itself; bytes are those of one body.
type Fault struct {
	// Skip so many requests; then so many have the fault, all where Times is 0.
	Skip, Times int

	Status     int    // answered instead of the blob
	RetryAfter string // with Status
	NoRange    bool   // ranges are ignored
	WrongRange bool   // another range comes than the one asked for
	DropAfter  int64  // the connection breaks
	StallAfter int64  // nothing comes any more
	Trickle    int64  // bytes a second
	WrongByte  bool   // of the blob, one in its middle
	Short      int64  // the blob, and what is said of it, lacks so many bytes
	Endless    bool   // the body goes on after the blob
	Forget     bool   // the upload is not known any more
}

// fault counts a request, and returns what is wrong with it.
func (r *Registry) fault(faults []Fault, count *int) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	*count++
	return nth(faults, *count)
}

// nth returns the fault of the nth request.
func nth(faults []Fault, n int) Fault {
	for _, f := range faults {
		if n > f.Skip && (f.Times == 0 || n <= f.Skip+f.Times) {
			return f
		}
	}
	return Fault{}
}

// serve answers with content, as well as the line and the fault let it.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request, d digest.Digest, content io.ReadSeeker, size int64) {
	f := r.fault(r.Faults, &r.served)
	if f.Status != 0 {
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		fail(w, f.Status, "TOOMANYREQUESTS")
		return
	}
	if r.Redirect != "" {
		link := fmt.Sprintf("%s/v2/%s/blobs/%s?signature=secret-%d", r.Redirect, cdn, d, r.links.Add(1))
		http.Redirect(w, req, link, http.StatusTemporaryRedirect)
		return
	}
	if link := req.URL.Query().Get("signature"); link != "" && !r.use(r.LinkUses, link) {
		fail(w, http.StatusForbidden, "DENIED")
		return
	}
	if f.NoRange {
		req = without(req, "Range")
	}
	if f.WrongRange && req.Header.Get("Range") != "" {
		req = without(req, "Range")
		req.Header.Set("Range", "bytes=1-7")
	}
	if f.WrongByte {
		content = &wrong{ReadSeeker: content, at: size / 2}
	}
	if f.Short > 0 {
		content = io.NewSectionReader(readerAt{content}, 0, size-f.Short)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	out := &faulty{ResponseWriter: w, fault: f, ctx: req.Context(), rate: r.Line.Bandwidth, start: time.Now()}
	if f.Trickle > 0 {
		out.rate = f.Trickle
	}
	if f.Endless {
		_, _ = io.Copy(out, content) // until the client goes
		_, _ = io.Copy(out, zeros{})
		return
	}
	http.ServeContent(out, req, "", time.Time{}, content)
}

// cdn is the repository by which redirects name blobs.
const cdn = "cdn"

// use counts the use of a token or a link, and reports whether it is still good.
func (r *Registry) use(limit int, what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses == nil {
		r.uses = map[string]int{}
	}
	r.uses[what]++
	return limit == 0 || r.uses[what] <= limit
}

func without(req *http.Request, header string) *http.Request {
	req = req.Clone(req.Context())
	req.Header.Del(header)
	return req
}

// wait reports whether the time has passed while ctx lived.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// faulty is a connection that has faults.
type faulty struct {
	http.ResponseWriter
	ctx   context.Context //nolint:containedctx // of the request
	fault Fault
	rate  int64
	start time.Time
	sent  int64
}

// piece is how much goes over the line at once: a fiftieth of a second's, so that
// it looks like a stream.
func (f *faulty) piece() int64 {
	n := int64(1 << 30)
	if f.rate > 0 {
		n = max(1, f.rate/50)
	}
	for _, limit := range []int64{f.fault.DropAfter, f.fault.StallAfter} {
		if limit > 0 {
			n = min(n, limit-f.sent)
		}
	}
	return n
}

// Write implements io.Writer.
func (f *faulty) Write(p []byte) (int, error) {
	n, err := f.ReadFrom(strings.NewReader(string(p)))
	return int(n), err
}

// ReadFrom implements io.ReaderFrom: a file goes out by sendfile.
func (f *faulty) ReadFrom(src io.Reader) (int64, error) {
	left := int64(1 << 62)
	if l, ok := src.(*io.LimitedReader); ok {
		src, left = l.R, l.N
	}
	var done int64
	for done < left {
		n, err := io.CopyN(f.ResponseWriter, src, min(f.piece(), left-done))
		done += n
		f.sent += n
		if f.rate > 0 || f.fault.StallAfter > 0 || f.fault.DropAfter > 0 {
			_ = http.NewResponseController(f.ResponseWriter).Flush() // else the next write fails
		}
		if f.fault.DropAfter > 0 && f.sent >= f.fault.DropAfter {
			panic(http.ErrAbortHandler)
		}
		if f.fault.StallAfter > 0 && f.sent >= f.fault.StallAfter {
			<-f.ctx.Done()
			panic(http.ErrAbortHandler)
		}
		switch {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, err
		}
		if f.rate > 0 && !wait(f.ctx, time.Until(f.start.Add(time.Duration(float64(f.sent)/float64(f.rate)*float64(time.Second))))) {
			return done, f.ctx.Err()
		}
	}
	return done, nil
}

// wrong flips a bit of one byte.
type wrong struct {
	io.ReadSeeker
	at, pos int64
}

func (w *wrong) Read(p []byte) (int, error) {
	n, err := w.ReadSeeker.Read(p)
	if i := w.at - w.pos; i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	w.pos += int64(n)
	return n, err
}

func (w *wrong) Seek(offset int64, whence int) (int64, error) {
	n, err := w.ReadSeeker.Seek(offset, whence)
	w.pos = n
	return n, err
}

// readerAt is for one request.
type readerAt struct{ io.ReadSeeker }

func (r readerAt) ReadAt(p []byte, offset int64) (int, error) {
	if _, err := r.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.ReadFull(r.ReadSeeker, p)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
