package fetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// Where there is another host to ask, a host is tried again fewRetries times, and
// waited for no longer than patience.
const (
	fewRetries = 2
	patience   = 2 * time.Second
)

// host is a source, and what came of it. Its fields are guarded by download.mu.
type host struct {
	Source
	alone  bool // one stream: it serves no ranges
	served bool // bytes
	until  time.Time
	tries  int // attempts that failed
	err    error
}

// Busy is the answer of a host that wants to be left alone for a while, such as
// 429 or 503.
type Busy struct {
	After time.Duration // zero where it does not say
	Err   error
}

// Error says what the host answered.
func (b *Busy) Error() string {
	if b.After <= 0 {
		return b.Err.Error()
	}
	return fmt.Sprintf("%v, and asks to come back in %s", b.Err, b.After.Round(time.Second))
}

// Unwrap returns what the host answered.
func (b *Busy) Unwrap() error { return b.Err }

// Failure says why no host has given the blob. Its kind is Unavailable where a
// later attempt may help, else that of the host asked last.
type Failure struct {
	Reasons []Reason // of each host, in the order in which they were asked
}

// Reason is what went wrong with one host.
type Reason struct {
	Host  string
	Tries int
	Err   error
}

// Error tells of each host what happened, and what to do about it.
func (f *Failure) Error() string {
	var all []string
	for _, r := range f.Reasons {
		text := strings.TrimPrefix(r.Err.Error(), r.Host+": ")
		if r.Tries > 1 {
			text = fmt.Sprintf("%s, at the last of %d attempts", text, r.Tries)
		}
		all = append(all, fmt.Sprintf("%s: %s (%s)", r.Host, text, advice(r.Err)))
	}
	return strings.Join(all, "; ")
}

// Unwrap returns the kind.
func (f *Failure) Unwrap() error {
	kind := errs.Unavailable
	for _, r := range f.Reasons {
		if kind = errs.Of(r.Err); kind == "" || kind == errs.Unavailable {
			return errs.Unavailable
		}
	}
	return kind
}

// advice is what a person can do about an error of a host.
func advice(err error) string {
	var busy *Busy
	var still *stalled
	switch {
	case errors.As(err, &busy):
		return "try again later, or log in if it limits anonymous pulls"
	case errors.As(err, &still):
		return "check the network to it, or raise stall_timeout"
	case errors.Is(err, errs.Denied):
		return "check the credentials for it"
	case errors.Is(err, errs.NotFound):
		return "check that the image is still complete there"
	case errors.Is(err, errs.Invalid):
		return "its copy is damaged: push the image to it again, or clear its cache"
	case errors.Is(err, errs.Unsupported):
		return "use another registry or mirror"
	}
	return "check that it is up and can be reached from this node, then pull again"
}

// host returns the one in use.
func (d *download) host() *host {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hosts[d.current]
}

func (d *download) single(h *host) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return h.alone
}

// until returns for how long a host wants to be left alone.
func (d *download) until(h *host) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Until(h.until)
}

// alone notes that a host is to be read in one stream.
func (d *download) alone(h *host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h.alone = true
	d.pace.single()
}

// served returns the names of the hosts that gave bytes.
func (d *download) served() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, h := range d.hosts {
		if h.served {
			names = append(names, h.Host())
		}
	}
	return names
}

// failed decides what follows an attempt that failed: it waits where the same
// host is to be asked again, or makes the next host the one in use; an error where
// there is none.
func (d *download) failed(ctx context.Context, h *host, tries int, err error) error {
	if errors.Is(err, errRange) && errs.Of(err) == "" {
		d.alone(h)
		return nil
	}
	wait := backoff(tries, rand.Float64)
	d.mu.Lock()
	h.tries, h.err = h.tries+1, err
	others := d.current+1 < len(d.hosts)
	leave := tries > d.options.Retries || lasting(err) || others && tries > fewRetries
	var busy *Busy
	var still *stalled
	switch {
	case errors.As(err, &busy):
		d.pace.throttled(time.Now())
		wait = max(wait, busy.After)
		leave = leave || wait > d.options.MaxWait || others && busy.After > patience
	case errors.As(err, &still):
		leave = leave || others
	}
	if leave {
		err := d.leaveLocked(h)
		d.mu.Unlock()
		return err
	}
	if until := time.Now().Add(wait); busy != nil && until.After(h.until) {
		h.until = until
	}
	d.mu.Unlock()
	return pause(ctx, wait)
}

// lasting reports whether time does not heal an error.
func lasting(err error) bool {
	switch errs.Of(err) {
	case errs.NotFound, errs.Denied, errs.Invalid, errs.Unsupported:
		return true
	}
	return false
}

// leaveLocked makes the host after h the one in use, unless that has been done.
func (d *download) leaveLocked(h *host) error {
	if d.hosts[d.current] != h {
		return nil
	}
	if d.current+1 < len(d.hosts) {
		d.current++
		d.pace = pace{limit: 1, most: d.options.PerBlob}
		return nil
	}
	f := &Failure{}
	for _, h := range d.hosts {
		f.Reasons = append(f.Reasons, Reason{Host: h.Host(), Tries: h.tries, Err: h.err})
	}
	return f
}
