package runtimetest

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// ExecStream implements runtime.Processes: OnStream is the process, and has the
// files of io until it returns.
func (f *Fake) ExecStream(ctx context.Context, r runtime.ExecRequest, io runtime.ExecIO, started func()) (int32, error) {
	err := f.on(ctx, runtime.VerbExecIO, r.ID, func(c *fakeContainer) error {
		if r.Process == nil || len(r.Process.Args) == 0 || r.Process.Terminal != (io.Console != nil) {
			return fmt.Errorf("exec in container %s: %w", r.ID, errs.Invalid)
		}
		return expect(c, runtime.Running)
	})
	if err != nil {
		return 0, err
	}
	own, err := copies(io)
	if err != nil {
		return 0, err
	}
	ended := make(chan int32, 1)
	go func() {
		defer closeAll(own.Stdin, own.Stdout, own.Stderr, own.Console)
		if f.OnStream != nil {
			ended <- f.OnStream(r, own)
			return
		}
		ended <- 0
	}()
	started()
	select {
	case exit := <-ended:
		return exit, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// copies returns what the process would have.
func copies(io runtime.ExecIO) (own runtime.ExecIO, err error) {
	for _, f := range []struct{ from, to **os.File }{
		{&io.Stdin, &own.Stdin}, {&io.Stdout, &own.Stdout}, {&io.Stderr, &own.Stderr}, {&io.Console, &own.Console},
	} {
		if *f.from == nil || err != nil {
			continue
		}
		var raw interface{ Control(func(uintptr)) error }
		if raw, err = (*f.from).SyscallConn(); err != nil {
			continue
		}
		fd := -1
		_ = raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }) // it is open
		if err == nil {
			*f.to = os.NewFile(uintptr(fd), (*f.from).Name())
		}
	}
	return own, err
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // write errors came with the writes
		}
	}
}
