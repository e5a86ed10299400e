package fetch

import "time"

const (
	growth   = 1.15            // what more connections must bring to stay
	again    = 5 * time.Second // until more are tried once more
	shortest = 100 * time.Millisecond
	longest  = 2 * time.Second
)

// pace decides how many connections a download uses: it doubles them while that
// makes the whole faster, goes back by a step where it did not, and tries a few
// more from time to time. It is for one goroutine at a time.
type pace struct {
	limit int // connections at a time
	most  int

	before  int     // the limit that gave best
	best    float64 // bytes a second
	settled time.Time
	window  time.Duration // zero until the first answer
	since   time.Time     // it began
	bytes   int64         // that came in it
	held    bool          // who reads has held the download up in it
}

// answered notes that the host honours ranges, and how long it took to answer
// the first request: rates are taken over a few times that.
func (p *pace) answered(took time.Duration, now time.Time) {
	if p.window != 0 {
		return
	}
	p.window = min(max(4*took, shortest), longest)
	p.before, p.limit = p.limit, min(2, p.most)
	p.begin(now)
}

// single makes it one connection, for good.
func (p *pace) single() { p.limit, p.most = 1, 1 }

// throttled halves the connections: the host has too much to do.
func (p *pace) throttled(now time.Time) {
	p.limit = max(1, p.limit/2)
	p.before, p.settled = p.limit, now
	p.begin(now)
}

func (p *pace) begin(now time.Time) { p.since, p.bytes, p.held = now, 0, false }

// add counts bytes that came, and decides at the end of each window.
func (p *pace) add(n int64, now time.Time) {
	p.bytes += n
	took := now.Sub(p.since)
	if p.window == 0 || took < p.window {
		return
	}
	rate := float64(p.bytes) / took.Seconds()
	held := p.held
	p.begin(now)
	switch {
	case held: // says nothing of the network
	case !p.settled.IsZero():
		if now.Sub(p.settled) >= again {
			p.try(rate, max(1, p.limit/2))
		}
	case rate >= growth*p.best:
		p.try(rate, p.limit)
	default:
		p.limit = p.before
	}
	if p.limit == p.before && p.settled.IsZero() {
		p.settled = now
	}
}

// try adds connections to see what they bring.
func (p *pace) try(rate float64, more int) {
	p.best, p.before, p.settled = rate, p.limit, time.Time{}
	p.limit = min(p.limit+more, p.most)
}
