package session

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// Processes is what Exec needs of berth-runtime.
type Processes interface {
	ExecStream(ctx context.Context, r runtime.ExecRequest, io runtime.ExecIO, started func()) (int32, error)
}

// firstSize is how long a program with a terminal waits for the client to tell
// its size, which most ask for at once and once.
const firstSize = 100 * time.Millisecond

// Exec runs a process with the client's streams and returns its exit code after
// all that it wrote has been delivered. r.Process.Terminal is set from s.
func Exec(ctx context.Context, rt Processes, r runtime.ExecRequest, s Streams) (int32, error) {
	p := *r.Process
	p.Terminal = s.Terminal
	r.Process = &p
	if s.Terminal {
		return execTerminal(ctx, rt, r, s)
	}
	return execPipes(ctx, rt, r, s)
}

func execPipes(ctx context.Context, rt Processes, r runtime.ExecRequest, s Streams) (int32, error) {
	defer closeOutput(s.Stdout)
	defer closeOutput(s.Stderr)
	var p pipes
	defer p.close()
	if err := p.open(s); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var outputs [2]*output
	exit, err := rt.ExecStream(ctx, r, runtime.ExecIO{Stdin: p.stdin.r, Stdout: p.stdout.w, Stderr: p.stderr.w}, func() {
		p.stdin.closeRead()
		p.stdout.closeWrite()
		p.stderr.closeWrite()
		if s.Stdin != nil {
			go feed(ctx, s.Stdin, p.stdin.w, true)
		}
		if s.Stdout != nil {
			outputs[0] = follow(p.stdout.r, s.Stdout)
		}
		if s.Stderr != nil {
			outputs[1] = follow(p.stderr.r, s.Stderr)
		}
	})
	if err != nil {
		return 0, err
	}
	for _, o := range outputs {
		o.end(ctx)
	}
	return exit, ctx.Err()
}

func execTerminal(ctx context.Context, rt Processes, r runtime.ExecRequest, s Streams) (int32, error) {
	defer closeOutput(s.Stdout)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, theirs, err := consoleSocket()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	defer theirs.Close()
	t := terminal{ctx: ctx, streams: s}
	defer t.hangUp()
	io := runtime.ExecIO{Console: theirs}
	if first, ok := t.firstSize(); ok {
		io.Width, io.Height = first.Width, first.Height
	}
	exit, err := rt.ExecStream(ctx, r, io, func() {
		if t.take(ours); t.err != nil {
			cancel()
		}
	})
	if t.err != nil {
		return 0, t.err
	}
	if err != nil {
		return 0, err
	}
	t.output.end(ctx)
	return exit, ctx.Err()
}

// terminal is that of one exec.
type terminal struct {
	ctx     context.Context
	streams Streams
	master  *os.File
	output  *output
	resizes sync.WaitGroup
	err     error
}

// take receives the terminal and begins to copy.
func (t *terminal) take(console *os.File) {
	if t.master, t.err = receiveMaster(console); t.err != nil {
		return
	}
	to := t.streams.Stdout
	if to == nil {
		to = discard{}
	}
	t.output = follow(t.master, to)
	if t.streams.Stdin != nil {
		// The end of the client's input is none that a terminal could have.
		go feed(t.ctx, t.streams.Stdin, t.master, false)
	}
	t.resizes.Go(func() { sizes(t.ctx, t.streams.Sizes, t.resize) })
}

func (t *terminal) resize(s Size) {
	raw, err := t.master.SyscallConn()
	if err != nil {
		return // it has been hung up
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width}) // see above
	})
}

func (t *terminal) hangUp() {
	if t.master != nil {
		_ = t.master.Close() // what was not read is lost with the client
	}
}

// firstSize waits a moment for a size that comes at once.
func (t *terminal) firstSize() (Size, bool) {
	if t.streams.Sizes == nil {
		return Size{}, false
	}
	select {
	case s, ok := <-t.streams.Sizes:
		return s, ok
	case <-time.After(firstSize):
	case <-t.ctx.Done():
	}
	return Size{}, false
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func consoleSocket() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveMaster takes the terminal's master, which was sent before the program
// ran.
func receiveMaster(console *os.File) (*os.File, error) {
	name, space := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(console.Fd()), name, space, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(space[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive terminal: %d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive terminal: %d descriptors: %w", len(fds), err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0]) // nothing was written
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
