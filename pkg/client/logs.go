package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/crilog"
	"github.com/berth-run/berth/pkg/errs"
)

// LogOptions says what of a log is shown, and how.
type LogOptions struct {
	// Follow goes on until the container has ended.
	Follow bool
	// Tail is how many of the last lines to begin with, -1 for all.
	Tail int
	// Since leaves out what is older; the zero time leaves out nothing.
	Since      time.Time
	Timestamps bool
}

// Logs writes what the container has written to the two writers. It reads the
// log file itself: a client is on the daemon's machine.
func (c *Client) Logs(ctx context.Context, id string, o LogOptions, stdout, stderr io.Writer) error {
	var resp *runtimeapi.ContainerStatusResponse
	status := func() (err error) {
		resp, err = c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		return err
	}
	err := status()
	if o.Follow && isAway(ctx, err) {
		err = c.outlast(ctx, status)
	}
	if err != nil {
		return err
	}
	path := resp.GetStatus().GetLogPath()
	if path == "" {
		return fail(errs.NotFound, "container %s has no log", resp.GetStatus().GetMetadata().GetName())
	}
	w := newLogWriter(o.Timestamps, stdout, stderr)
	read := crilog.Options{Follow: o.Follow, Tail: max(o.Tail, 0), NoHistory: o.Tail == 0, Since: o.Since}
	if o.Follow {
		waitCtx, stop := context.WithCancel(ctx)
		defer stop()
		end := c.waitInBackground(waitCtx, id)
		read.Ended = func() bool {
			// The end of the file is reached: what there is is shown.
			return w.flush() != nil || end.isOver()
		}
		if err := crilog.Read(ctx, path, read, w.write); err != nil {
			return err
		}
		return errors.Join(w.flush(), end.failed())
	}
	if err := crilog.Read(ctx, path, read, w.write); err != nil {
		return err
	}
	return w.flush()
}

// waiter tells whether a container has ended. Its log is whole by then.
type waiter struct {
	done chan struct{}
	err  error // good once done is closed
}

// waitInBackground waits until the container or ctx ends.
func (c *Client) waitInBackground(ctx context.Context, id string) *waiter {
	w := &waiter{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		_, w.err = c.Wait(ctx, id)
	}()
	return w
}

func (w *waiter) isOver() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func (w *waiter) failed() error {
	if !w.isOver() {
		return nil
	}
	return w.err
}

// logWriter writes records as lines. It keeps the first error of its writers.
type logWriter struct {
	timestamps bool
	out        map[crilog.Stream]*bufio.Writer
	// middle tells that the stream's last record was a part of a line.
	middle map[crilog.Stream]bool
	err    error
}

func newLogWriter(timestamps bool, stdout, stderr io.Writer) *logWriter {
	return &logWriter{
		timestamps: timestamps,
		out:        map[crilog.Stream]*bufio.Writer{crilog.Stdout: bufio.NewWriter(stdout), crilog.Stderr: bufio.NewWriter(stderr)},
		middle:     map[crilog.Stream]bool{},
	}
}

func (w *logWriter) write(r crilog.Record) error {
	out := w.out[r.Stream]
	if w.timestamps && !w.middle[r.Stream] {
		_, _ = out.WriteString(r.Time.Format("2006-01-02T15:04:05.000000000Z07:00") + " ") // the last write has the error
	}
	_, err := out.Write(r.Text)
	if !r.Partial {
		err = out.WriteByte('\n')
	}
	w.middle[r.Stream] = r.Partial
	return err
}

// flush returns the first error of either writer, now or before.
func (w *logWriter) flush() error {
	for _, s := range []crilog.Stream{crilog.Stdout, crilog.Stderr} {
		if err := w.out[s].Flush(); err != nil && w.err == nil {
			w.err = err
		}
	}
	return w.err
}

// HasTerminal tells whether the container was made with one.
func (c *Client) HasTerminal(ctx context.Context, id string) (bool, error) {
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return false, err
	}
	return resp.GetStatus().GetAnnotations()[apiv1.AnnotationTTY] == "true", nil
}
