package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

type attachStream = grpc.BidiStreamingServer[apiv1.AttachRequest, apiv1.AttachResponse]

// Attach connects the stream to a container's stdio:
//
//	client ──stdin, sizes──▶ receive ──pipe──▶ berth-runtime
//	client ◀──────output──── send    ◀──pipe── berth-runtime
//
// It ends when the container does, or when the client goes away. Output that
// the client does not read in time is berth-runtime's to drop, and so is what
// comes while a worker of it is replaced by the next.
func (s *Server) Attach(stream attachStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fmt.Errorf("attach: the first message names no container: %w", errs.Invalid)
	}
	p, err := openPipes(start)
	if err != nil {
		return err
	}
	defer p.close()
	a := &attachment{runtime: s.deps.Runtime, stopping: s.deps.Stopping, id: start.ContainerId, stream: stream, pipes: p}
	return a.run(stream.Context(), start.Size)
}

// attachment is one client's connection to one container.
type attachment struct {
	runtime  runtime.Runtime
	stopping <-chan struct{}
	id       string
	stream   attachStream
	pipes    *pipes

	mu sync.Mutex // one Send at a time
}

func (a *attachment) run(ctx context.Context, size *apiv1.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.send(&apiv1.AttachResponse{Response: &apiv1.AttachResponse_Attached{Attached: &apiv1.Attached{}}}); err != nil {
		return err
	}
	a.resize(ctx, size)
	var outputs sync.WaitGroup
	outputs.Go(func() { a.copyOut(a.pipes.stdout.read, stdout) })
	outputs.Go(func() { a.copyOut(a.pipes.stderr.read, stderr) })
	// The receiver ends when the handler returns, which ends the stream. Nobody
	// can wait for it before: Recv has no other end.
	go a.receive(ctx)
	lost := false
	err := outlast(ctx, a.stopping, func(ctx context.Context) (bool, error) {
		began := time.Now()
		err := a.runtime.Attach(ctx, runtime.AttachRequest{ID: a.id}, runtime.AttachIO{
			Stdin: a.pipes.stdin.read, Stdout: a.pipes.stdout.write, Stderr: a.pipes.stderr.write,
		})
		if lost && errors.Is(err, errs.Conflict) {
			return true, nil // it ended while berth-runtime was away
		}
		lost = true
		return time.Since(began) > awayPause, err
	})
	a.pipes.closeRuntimeEnds()
	outputs.Wait()
	return err
}

// receive passes on what the client sends until it has no more to say.
func (a *attachment) receive(ctx context.Context) {
	defer a.pipes.stdin.closeWrite()
	for {
		r, err := a.stream.Recv()
		if err != nil {
			return
		}
		switch r := r.Request.(type) {
		case *apiv1.AttachRequest_Stdin:
			if err := a.pipes.stdin.writeAll(r.Stdin); err != nil {
				klog.FromContext(ctx).V(4).Info("Container does not read stdin", "container", a.id, "err", err)
				a.pipes.stdin.closeWrite()
			}
		case *apiv1.AttachRequest_CloseStdin:
			a.pipes.stdin.closeWrite()
		case *apiv1.AttachRequest_Size:
			a.resize(ctx, r.Size)
		}
	}
}

// resize sets the terminal's size. A container that has none, or has ended,
// leaves nothing to do and nobody to tell.
func (a *attachment) resize(ctx context.Context, size *apiv1.TerminalSize) {
	if size == nil || size.Width == 0 || size.Height == 0 {
		return
	}
	if err := a.runtime.Resize(ctx, a.id, uint16(size.Width), uint16(size.Height)); err != nil {
		klog.FromContext(ctx).V(4).Info("Terminal was not resized", "container", a.id, "err", err)
	}
}

func stdout(b []byte) *apiv1.AttachResponse {
	return &apiv1.AttachResponse{Response: &apiv1.AttachResponse_Stdout{Stdout: b}}
}

func stderr(b []byte) *apiv1.AttachResponse {
	return &apiv1.AttachResponse{Response: &apiv1.AttachResponse_Stderr{Stderr: b}}
}

// copyOut sends what r gives, as message makes it. It reads on after the client
// has gone, so that berth-runtime never waits for it.
func (a *attachment) copyOut(r *os.File, message func([]byte) *apiv1.AttachResponse) {
	if r == nil {
		return
	}
	buf := make([]byte, 32<<10)
	gone := false
	for {
		n, err := r.Read(buf)
		if n > 0 && !gone {
			gone = a.send(message(buf[:n])) != nil
		}
		if err != nil {
			return // the writing end is closed
		}
	}
}

func (a *attachment) send(m *apiv1.AttachResponse) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.Send(m)
}

// pipes are the three streams between this process and berth-runtime; a stream
// that the client did not ask for has no ends.
type pipes struct{ stdin, stdout, stderr pipe }

func openPipes(r *apiv1.AttachStart) (*pipes, error) {
	p := &pipes{}
	err := errors.Join(p.stdin.open(r.Stdin), p.stdout.open(r.Stdout), p.stderr.open(r.Stderr))
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// closeRuntimeEnds closes what berth-runtime has its own copies of.
func (p *pipes) closeRuntimeEnds() {
	p.stdin.closeRead()
	p.stdout.closeWrite()
	p.stderr.closeWrite()
}

func (p *pipes) close() {
	for _, one := range []*pipe{&p.stdin, &p.stdout, &p.stderr} {
		one.closeRead()
		one.closeWrite()
	}
}

// pipe is an os.Pipe whose ends may be missing, and be closed twice.
type pipe struct {
	read, write *os.File
}

func (p *pipe) open(wanted bool) (err error) {
	if wanted {
		p.read, p.write, err = os.Pipe()
	}
	return err
}

func (p *pipe) writeAll(b []byte) error {
	if p.write == nil {
		return io.ErrClosedPipe
	}
	_, err := p.write.Write(b)
	return err
}

// closeRead and closeWrite may be called twice: a file's second Close is an
// error and nothing else.
func (p *pipe) closeRead() {
	if p.read != nil {
		_ = p.read.Close()
	}
}

func (p *pipe) closeWrite() {
	if p.write != nil {
		_ = p.write.Close()
	}
}
