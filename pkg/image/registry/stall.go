package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// stallReader cancels a request whose body stands still. The clock runs only
// while a Read waits, not while the consumer is busy.
type stallReader struct {
	ctx    context.Context //nolint:containedctx // of this one body
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
	what   string
}

func newStallReader(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, limit time.Duration, what string) *stallReader {
	r := &stallReader{ctx: ctx, cancel: cancel, body: body, limit: limit, what: what}
	r.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("no byte came for %s: %w", limit, errs.Unavailable))
	})
	r.timer.Stop()
	return r
}

// Read implements io.Reader.
func (r *stallReader) Read(p []byte) (int, error) {
	r.timer.Reset(r.limit)
	n, err := r.body.Read(p)
	r.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", r.what, explain(r.ctx, err))
	}
	return n, err
}

// Close ends the request.
func (r *stallReader) Close() error {
	r.timer.Stop()
	err := r.body.Close()
	r.cancel(nil)
	return err
}
