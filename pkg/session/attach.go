package session

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// soon is how long a call to a berth-runtime that is not there takes at most.
const soon = 50 * time.Millisecond

// Container is what Attach needs of berth-runtime.
type Container interface {
	Attach(ctx context.Context, r runtime.AttachRequest, io runtime.AttachIO) error
	Resize(ctx context.Context, id string, width, height uint16) error
}

// Attach connects the client to a container until that ends, the client's input
// ends with StdinOnce, or ctx does. It outlasts a restart of berth-runtime; what
// the container writes meanwhile is in its log alone.
func Attach(ctx context.Context, rt Container, id string, s Streams) error {
	defer closeOutput(s.Stdout)
	defer closeOutput(s.Stderr)
	var p pipes
	defer p.close()
	if err := p.open(s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Stdin != nil {
		go feed(ctx, s.Stdin, p.stdin.w, true)
	}
	var resizes, outputs sync.WaitGroup
	resizes.Go(func() {
		// A container without a terminal, or that has ended, leaves nothing to do.
		sizes(ctx, s.Sizes, func(z Size) { _ = rt.Resize(ctx, id, z.Width, z.Height) })
	})
	outputs.Go(func() { relay(p.stdout.r, s.Stdout) })
	outputs.Go(func() { relay(p.stderr.r, s.Stderr) })
	err := attach(ctx, rt, id, runtime.AttachIO{Stdin: p.stdin.r, Stdout: p.stdout.w, Stderr: p.stderr.w})
	p.stdout.closeWrite()
	p.stderr.closeWrite()
	drain(ctx, &outputs)
	cancel()
	resizes.Wait()
	return err
}

// attach tries again while berth-runtime is away.
func attach(ctx context.Context, rt Container, id string, files runtime.AttachIO) error {
	lost := false
	return runtime.Outlast(ctx, func(ctx context.Context) (bool, error) {
		began := time.Now()
		err := rt.Attach(ctx, runtime.AttachRequest{ID: id}, files)
		if lost && errors.Is(err, errs.Conflict) {
			return true, nil // it ended while berth-runtime was away
		}
		lost = true
		return time.Since(began) > soon, err
	})
}

// drain waits for what the client has yet to get; for a client that may have gone,
// not long.
func drain(ctx context.Context, outputs *sync.WaitGroup) {
	over := make(chan struct{})
	go func() { outputs.Wait(); close(over) }()
	var late <-chan time.Time
	if ctx.Err() != nil {
		late = time.After(grace)
	}
	select {
	case <-over:
	case <-late:
	}
}

// relay sends what r gives. It reads on after the client has gone.
func relay(r *os.File, to io.WriteCloser) {
	if r == nil {
		return
	}
	buf := make([]byte, 32<<10)
	for gone := false; ; {
		n, err := r.Read(buf)
		if n > 0 && !gone {
			_, err := to.Write(buf[:n])
			gone = err != nil
		}
		if err != nil {
			return
		}
	}
}
