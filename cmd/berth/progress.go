package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// speedAge is how many messages the rate is the mean of.
const speedAge = 30

// progress shows a pull or a push: a bar for each blob on a terminal, else a line for
// each phase, on stderr. It is for one goroutine; the bars are drawn by others.
type progress struct {
	w     io.Writer // nil shows nothing
	bars  *mpb.Progress
	blobs map[string]*mpb.Bar
	moved map[string]time.Time // when a blob's last message came

	mu     sync.Mutex
	phases map[string]string
}

// phase returns what was said last of a blob.
func (p *progress) phase(digest string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phases[digest]
}

func (p *progress) setPhase(m *apiv1.PullProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phases[m.Digest] = m.Phase
}

func (a *app) newProgress(quiet bool) *progress {
	p := &progress{blobs: map[string]*mpb.Bar{}, moved: map[string]time.Time{}, phases: map[string]string{}}
	if quiet {
		return p
	}
	p.w = a.errOut
	if f, ok := a.errOut.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40))
	}
	return p
}

// show takes one message.
func (p *progress) show(m *apiv1.PullProgress) {
	switch {
	case p.w == nil:
	case p.bars != nil && m.Digest != "":
		p.bar(m)
	default:
		p.line(m)
	}
}

// line tells of a phase once.
func (p *progress) line(m *apiv1.PullProgress) {
	if p.bars != nil || p.phase(m.Digest) == m.Phase {
		return
	}
	p.setPhase(m)
	text := m.Phase
	if m.Digest != "" {
		text = client.ShortID(m.Digest) + ": " + text
	}
	if m.Total > 0 {
		text += " " + size(m.Total)
	}
	fmt.Fprintln(p.w, text)
}

func (p *progress) bar(m *apiv1.PullProgress) {
	bar := p.blobs[m.Digest]
	if bar == nil {
		bar = p.newBar(m.Digest)
		p.blobs[m.Digest], p.moved[m.Digest] = bar, time.Now()
	}
	p.setPhase(m)
	switch m.Phase {
	case "done", "exists", "mounted":
		bar.SetTotal(max(m.Total, bar.Current(), 1), false)
		bar.SetTotal(-1, true)
	default:
		// One byte more keeps the bar alive until the blob is unpacked.
		bar.SetTotal(m.Total+1, false)
		bar.EwmaSetCurrent(m.Offset, time.Since(p.moved[m.Digest]))
		p.moved[m.Digest] = time.Now()
	}
}

func (p *progress) newBar(digest string) *mpb.Bar {
	phase := func(decor.Statistics) string { return p.phase(digest) }
	return p.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(client.ShortID(digest), decor.WCSyncSpaceR), decor.Any(phase, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.Counters(decor.SizeB1000(0), "% .1f / % .1f", decor.WCSyncSpace),
			decor.OnComplete(decor.EwmaSpeed(decor.SizeB1000(0), "% .1f", speedAge, decor.WCSyncSpace), ""),
			decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, speedAge, decor.WCSyncSpace), ""),
		),
	)
}

// end leaves the terminal as the next line of output wants it.
func (p *progress) end() {
	for _, bar := range p.blobs {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	if p.bars != nil {
		p.bars.Wait()
	}
}
