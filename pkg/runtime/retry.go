package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
)

// The server may be killed at any moment and is back within milliseconds. A
// call whose answer was lost is repeated for so long.
const (
	retryFor   = 10 * time.Second
	retryFirst = 10 * time.Millisecond
	retryLast  = 500 * time.Millisecond
)

// A worker that dies, or is upgraded, has a successor within milliseconds. What
// outlasts it looks for that so long, and so often.
const (
	awayLimit = 30 * time.Second
	awayPause = 50 * time.Millisecond
)

// Outlast calls f again each time that the server has gone while it ran, unless
// that stays away. f tells whether it had got through to it.
func Outlast(ctx context.Context, f func(context.Context) (connected bool, err error)) error {
	for seen := time.Now(); ; {
		connected, err := f(ctx)
		if connected {
			seen = time.Now()
		}
		if !errors.Is(err, errs.Unavailable) || time.Since(seen) > awayLimit {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(awayPause):
		}
	}
}

// retry repeats call while its answer is lost, until ctx ends or retryFor has
// passed. The call must be one that may be done twice.
func retry(ctx context.Context, call func() error) error {
	return retryOn(ctx, errs.Unavailable, call)
}

// heard repeats call, which may be one that must not be done twice, until somebody
// has heard it, as retry does.
func heard(ctx context.Context, call func() error) error {
	return retryOn(ctx, rpc.ErrNotHeard, call)
}

func retryOn(ctx context.Context, lost error, call func() error) error {
	err := call()
	if !errors.Is(err, lost) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	for wait := retryFirst; errors.Is(err, lost); wait = min(2*wait, retryLast) {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		err = call()
	}
	return err
}

// retryCreate makes a container anew where the answer was lost: what the lost
// call made, or half made, is deleted first.
func retryCreate(ctx context.Context, create, remove func() error) error {
	err := create()
	if !errors.Is(err, errs.Unavailable) {
		return err
	}
	return retry(ctx, func() error {
		if err := remove(); err != nil && !errors.Is(err, errs.NotFound) {
			return err
		}
		return create()
	})
}

// find returns one container of the server's list.
func (c *Client) find(ctx context.Context, id string) (Container, error) {
	all, err := c.List(ctx)
	if err != nil {
		return Container{}, err
	}
	for _, k := range all {
		if k.ID == id {
			return k, nil
		}
	}
	return Container{}, errs.NotFound
}
