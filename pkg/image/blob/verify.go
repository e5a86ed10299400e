package blob

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/digester"
)

// ErrMismatch says that bytes are not what their descriptor promised.
var ErrMismatch = errors.New("content does not match its descriptor")

// Verifier passes a stream on while it counts and hashes it. At the stream's end
// it answers io.EOF only if size and digest were right; more bytes than promised
// end it at once. It is for one goroutine.
type Verifier struct {
	r     io.Reader
	want  digest.Digest
	size  int64
	count int64
	hash  hash.Hash
}

// NewVerifier verifies r against d and size; a size below zero is not known. d
// must be valid.
func NewVerifier(r io.Reader, d digest.Digest, size int64) *Verifier {
	return &Verifier{r: r, want: d, size: size, hash: digester.New(d.Algorithm())}
}

// Position is how far a Verifier has come: what another one needs to go on.
type Position struct {
	Offset int64  `json:"offset"` // in bytes
	Hash   []byte `json:"hash"`   // of the bytes before it, not finished
}

// Position returns how far v has come.
func (v *Verifier) Position() (Position, error) {
	m, ok := v.hash.(encoding.BinaryMarshaler)
	if !ok {
		return Position{}, fmt.Errorf("%s: its hash cannot be gone on with: %w", v.want.Algorithm(), errs.Unsupported)
	}
	h, err := m.MarshalBinary()
	return Position{Offset: v.count, Hash: h}, err
}

// Resume makes v, which has read nothing yet, go on from p: its stream begins
// there.
func (v *Verifier) Resume(p Position) error {
	m, ok := v.hash.(encoding.BinaryUnmarshaler)
	if !ok || p.Offset < 0 || m.UnmarshalBinary(p.Hash) != nil {
		return fmt.Errorf("%s: no position of its stream: %w", v.want, errs.Unsupported)
	}
	v.count = p.Offset
	return nil
}

// Read implements io.Reader.
func (v *Verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.count += int64(n)
	if v.size >= 0 && v.count > v.size {
		return 0, fmt.Errorf("%s: more than the %d bytes promised: %w", v.want, v.size, ErrMismatch)
	}
	if err == io.EOF {
		if bad := v.check(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

func (v *Verifier) check() error {
	if v.size >= 0 && v.count != v.size {
		return fmt.Errorf("%s: %d bytes of %d: %w: %w", v.want, v.count, v.size, ErrMismatch, io.ErrUnexpectedEOF)
	}
	if got := digest.NewDigest(v.want.Algorithm(), v.hash); got != v.want {
		return fmt.Errorf("%s: its bytes have digest %s: %w", v.want, got, ErrMismatch)
	}
	return nil
}

// Drain reads what is left, so that the whole stream is verified, and returns
// nil only if it was right. At most limit bytes more are read.
func (v *Verifier) Drain(limit int64) error {
	n, err := io.Copy(io.Discard, io.LimitReader(v, limit))
	if err != nil {
		return err
	}
	if n == limit {
		return fmt.Errorf("%s: more than %d bytes after its end: %w", v.want, limit, errs.Invalid)
	}
	return v.check()
}

// ContextReader makes each Read of r fail once ctx has ended.
func ContextReader(ctx context.Context, r io.Reader) io.Reader {
	return &contextReader{ctx: ctx, r: r}
}

// contextReader lives for one copy, the one that ctx is for.
type contextReader struct {
	ctx context.Context //nolint:containedctx // the reader is the call
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
