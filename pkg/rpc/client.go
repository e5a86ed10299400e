package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
)

// ErrNotHeard marks the errs.Unavailable of a call that no server has read to its
// end, and so none has begun: to make it again is not to make it twice.
var ErrNotHeard = errors.New("not heard")

// Do calls verb with request on the server that listens at path and decodes
// its answer into reply, unless that is nil. The files are passed along and
// stay the caller's. When ctx ends the call is cancelled and its error
// returned; a server that is not there, dies or ends is errs.Unavailable, and
// ErrNotHeard too where it did so before it had read the request.
func Do(ctx context.Context, path, verb string, request, reply any, files ...*os.File) error {
	return Stream(ctx, path, verb, request, reply, nil, files...)
}

// Stream is Do for a verb that sends items before its answer. It calls item
// with each, JSON or bytes, which is valid during the call only; an error from
// item ends the call.
func Stream(ctx context.Context, path, verb string, request, reply any, item func([]byte) error, files ...*os.File) error {
	err := exchange(ctx, path, verb, request, reply, item, files)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: %w", verb, ctx.Err())
	}
	return err
}

func exchange(ctx context.Context, path, verb string, request, reply any, item func([]byte) error, files []*os.File) error {
	kind := kindRequest
	if stage.Deep(ctx) {
		kind = kindDeep
	}
	frame, err := encode(kind, verb+"\n", request)
	if err != nil {
		return err
	}
	defer putBuffer(frame)
	conn, err := dial(ctx, path)
	if err != nil {
		return fmt.Errorf("%s: %w: %w: %w", verb, errs.Unavailable, ErrNotHeard, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := writeWithFiles(conn, frame.Bytes(), files); err != nil {
		return fmt.Errorf("%s: send: %w: %w: %w", verb, errs.Unavailable, ErrNotHeard, err)
	}
	return receive(ctx, conn, verb, reply, item)
}

func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func receive(ctx context.Context, conn *net.UnixConn, verb string, reply any, item func([]byte) error) error {
	b := buffers.Get().(*bytes.Buffer)
	defer putBuffer(b)
	r := &shortReader{conn: conn}
	for {
		k, err := readFrame(r, b)
		if errors.Is(err, unix.ECONNRESET) { // the other end had not read all: else it is io.EOF
			return fmt.Errorf("%s: connection lost: %w: %w: %w", verb, errs.Unavailable, ErrNotHeard, err)
		}
		if err != nil {
			return fmt.Errorf("%s: connection lost: %w: %w", verb, errs.Unavailable, err)
		}
		switch k {
		case kindItem:
			if item == nil {
				return fmt.Errorf("%s: unexpected item: %w", verb, errs.Invalid)
			}
			if err := item(b.Bytes()); err != nil {
				return err
			}
		case kindPassed:
			var all []stage.Passed
			if err := json.Unmarshal(b.Bytes(), &all); err != nil {
				return fmt.Errorf("%s: decode stages: %w", verb, err)
			}
			stage.Past(ctx, all)
		case kindResult:
			if reply == nil || b.Len() == 0 {
				return nil
			}
			return json.Unmarshal(b.Bytes(), reply)
		case kindFailure:
			return decodeFailure(verb, b.Bytes())
		default:
			return fmt.Errorf("%s: frame of kind %q: %w", verb, k, errs.Invalid)
		}
	}
}

func decodeFailure(verb string, payload []byte) error {
	var remote errs.Remote
	if err := json.Unmarshal(payload, &remote); err != nil {
		return fmt.Errorf("%s: decode failure: %w", verb, err)
	}
	if err := errs.Decode(&remote); err != nil {
		return err
	}
	return errors.New("failure without a cause")
}

// shortReader buffers small reads, so that a reply's header and payload come
// with one system call.
type shortReader struct {
	conn *net.UnixConn
	buf  [4096]byte
	rest []byte
}

// Read implements io.Reader.
func (r *shortReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(p) >= len(r.buf) {
			return r.conn.Read(p)
		}
		n, err := r.conn.Read(r.buf[:])
		if err != nil {
			return 0, err
		}
		r.rest = r.buf[:n]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
