package manifest

import "time"

// kubelet's figures for restarting containers and for pulling images.
const (
	firstDelay = 10 * time.Second
	maxDelay   = 5 * time.Minute
	// forgetAfter is how long something must have gone well for its delay to
	// begin anew.
	forgetAfter = 2 * maxDelay
)

// backOff is how long the next attempt waits: nothing at first, then 10 s, and
// twice as long each time, up to 5 minutes. The zero value waits for nothing.
type backOff struct {
	Delay time.Duration `json:"delay,omitempty"`
	// Since is when Delay was set.
	Since time.Time `json:"since,omitzero"`
}

// until returns when the next attempt may be made after a failure at that time.
func (b *backOff) until(failed time.Time) time.Time {
	if b.Delay == 0 || failed.Sub(b.Since) > forgetAfter {
		return failed
	}
	return failed.Add(b.Delay)
}

// attempt tells that one is made now, after a failure at that time: the next
// waits longer.
func (b *backOff) attempt(failed, now time.Time) {
	if b.Delay == 0 || failed.Sub(b.Since) > forgetAfter {
		b.Delay = firstDelay
	} else {
		b.Delay = min(2*b.Delay, maxDelay)
	}
	b.Since = now
}
