package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/errs"
)

// reading shows how far the daemon has read its content: one bar on a terminal,
// else nothing. It is for one goroutine; the bar is drawn by another.
type reading struct {
	bars *mpb.Progress
	bar  *mpb.Bar

	mu     sync.Mutex
	object string
}

func newReading(w io.Writer, quiet bool) *reading {
	r := &reading{}
	if f, ok := w.(*os.File); ok && !quiet && term.IsTerminal(int(f.Fd())) {
		r.draw(f)
	}
	return r
}

func (r *reading) draw(w io.Writer) {
	object := func(decor.Statistics) string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.object
	}
	r.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	r.bar = r.bars.AddBar(0,
		mpb.PrependDecorators(decor.Any(object)),
		mpb.AppendDecorators(decor.Counters(decor.SizeB1000(0), "% .1f / % .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)),
	)
}

// verify has the daemon read every byte of images again, shows how far it is, and
// returns what it has found.
func (r *reading) verify(ctx context.Context, c *client.Client, repair bool) ([]*apiv1.Problem, error) {
	defer r.end()
	stream, err := c.Admin.Verify(ctx, &apiv1.VerifyRequest{Repair: repair})
	if err != nil {
		return nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("verify: the daemon ended it: %w", errs.Unavailable)
		}
		if err != nil || m.Progress == nil {
			return m.GetProblems(), err
		}
		r.show(m.Progress)
	}
}

// show takes one message.
func (r *reading) show(p *apiv1.VerifyProgress) {
	if r.bars == nil {
		return
	}
	r.mu.Lock()
	r.object = p.Store + " " + shortDigest(p.Object)
	r.mu.Unlock()
	r.bar.SetTotal(p.Total+1, false) // one byte more keeps the bar alive until the end
	r.bar.SetCurrent(p.Done)
}

// end leaves the terminal as the next line of output wants it.
func (r *reading) end() {
	if r.bars == nil {
		return
	}
	r.bar.SetTotal(-1, true)
	r.bars.Wait()
}
