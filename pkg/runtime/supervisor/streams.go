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
	files := call.TakeFiles()
	var io stdio.AttachIO
	for _, end := range []struct {
		wanted bool
		f      **os.File
	}{{m.Stdin, &io.Stdin}, {m.Stdout, &io.Stdout}, {m.Stderr, &io.Stderr}} {
		if end.wanted && len(files) > 0 {
			*end.f, files = files[0], files[1:]
		}
	}
	for _, f := range files {
		_ = f.Close() // more than were announced
	}
	return c.stdio.Attach(ctx, io, func() { w.keeper.drop(m.ID, "stdin") })
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
