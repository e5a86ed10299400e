package supervisor

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/stdio"
)

func (w *worker) attach(ctx context.Context, call *rpc.Call, m runtime.AttachMessage) error {
	call.Long()
	c, err := w.find(m.ID)
	if err != nil {
		return err
	}
	if c.stdio == nil || c.get().State == runtime.Stopped {
		return fmt.Errorf("attach to container %s: it is stopped: %w", m.ID, errs.Conflict)
	}
	var io stdio.AttachIO
	takeFiles(call, passed{m.Stdin, &io.Stdin}, passed{m.Stdout, &io.Stdout}, passed{m.Stderr, &io.Stderr})
	return c.stdio.Attach(ctx, io, func() { w.keeper.drop(m.ID, "stdin") })
}

// passed is a file that a call may bring.
type passed struct {
	wanted bool
	f      **os.File
}

// takeFiles hands the call's files out in their order.
func takeFiles(call *rpc.Call, ends ...passed) {
	files := call.TakeFiles()
	for _, end := range ends {
		if end.wanted && len(files) > 0 {
			*end.f, files = files[0], files[1:]
		}
	}
	closeFiles(files...) // more than were announced
}

func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing was written through it
		}
	}
}

func (w *worker) resize(ctx context.Context, r runtime.ResizeRequest) error {
	return w.live(ctx, r.ID, func(c *container) error { return c.stdio.Resize(r.Width, r.Height) })
}

func (w *worker) reopenLog(ctx context.Context, id string) error {
	return w.live(ctx, id, func(c *container) error {
		if err := c.stdio.Reopen(); err != nil {
			return err
		}
		w.keep(c)
		return nil
	})
}

// dupFD returns a copy of f's descriptor, close-on-exec.
func dupFD(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if controlErr != nil {
		return -1, controlErr
	}
	return fd, err
}
