package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// maxFrame bounds a payload: the largest reply is an exec's two streams of
// 16 MiB each, in base64, to a client that takes no pieces.
const maxFrame = 64 << 20

// headerSize is the kind and the length.
const headerSize = 5

type kind byte

const (
	kindRequest kind = 'q'
	kindDeep    kind = 'Q' // a request whose stages are wanted
	kindPassed  kind = 'p'
	kindItem    kind = 'i'
	kindResult  kind = 'r'
	kindFailure kind = 'e'
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled keeps rare large frames out of the pool.
const maxPooled = 256 << 10

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// encode builds a frame in a pooled buffer: prefix, then v as JSON.
func encode(k kind, prefix string, v any) (*bytes.Buffer, error) {
	b := begin(k, prefix)
	if v != nil {
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			putBuffer(b)
			return nil, fmt.Errorf("encode: %w", err)
		}
	}
	return finish(b)
}

// begin takes a pooled buffer and leaves room for the length.
func begin(k kind, prefix string) *bytes.Buffer {
	b := buffers.Get().(*bytes.Buffer)
	b.Write([]byte{byte(k), 0, 0, 0, 0})
	b.WriteString(prefix)
	return b
}

// finish fills in the length.
func finish(b *bytes.Buffer) (*bytes.Buffer, error) {
	size := b.Len() - headerSize
	if size > maxFrame {
		putBuffer(b)
		return nil, fmt.Errorf("frame of %d bytes, at most %d: %w", size, maxFrame, errs.Exhausted)
	}
	binary.BigEndian.PutUint32(b.Bytes()[1:], uint32(size))
	return b, nil
}

// readFrame reads one frame from r into b, replacing its content, and returns
// the frame's kind. io.EOF means that r ended before a frame began.
func readFrame(r io.Reader, b *bytes.Buffer) (kind, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	size := int64(binary.BigEndian.Uint32(header[1:]))
	if size > maxFrame {
		return 0, fmt.Errorf("frame of %d bytes, at most %d: %w", size, maxFrame, errs.Invalid)
	}
	b.Reset()
	n, err := io.Copy(b, io.LimitReader(r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return kind(header[0]), err
}

// splitRequest takes a request's payload apart.
func splitRequest(payload []byte) (verb string, body []byte, err error) {
	name, body, found := bytes.Cut(payload, []byte{'\n'})
	if !found || len(name) == 0 || len(name) > 64 {
		return "", nil, fmt.Errorf("request without a verb: %w", errs.Invalid)
	}
	return string(name), body, nil
}
