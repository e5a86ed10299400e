package client

import (
	"context"
	"errors"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// patience is how long a call that waits for a container puts up with a daemon
// that has gone: one that is restarted or upgraded is back within seconds.
const (
	patience   = 30 * time.Second
	retryEvery = 100 * time.Millisecond
)

// outlast calls f again each time that the daemon went away while it ran,
// unless the daemon stays away. The containers do not notice that it went.
func (c *Client) outlast(ctx context.Context, f func() error) error {
	gone := time.Now()
	for {
		began := time.Now()
		err := f()
		if !isAway(ctx, err) {
			return err
		}
		if now := time.Now(); now.Sub(began) > time.Second { // somebody had answered
			gone = now
		}
		if time.Since(gone) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryEvery):
		}
		c.conn.ResetConnectBackoff() // or it waits for what is there already
	}
}

// isAway tells whether err is of a daemon that has gone or is going: then it
// cancels what it cannot finish.
func isAway(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, errs.Unavailable) || errors.Is(err, context.Canceled))
}
