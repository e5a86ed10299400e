package client

import (
	"bufio"
	"context"
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
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return err
	}
	path := resp.GetStatus().GetLogPath()
	if path == "" {
		return fail(errs.NotFound, "container %s has no log", resp.GetStatus().GetMetadata().GetName())
	}
	file, err := openLog(path, o.Tail)
	if err != nil {
		return err
	}
	defer file.close()
	w := newLogWriter(o, stdout, stderr)
	if !o.Follow {
		return w.copy(file)
	}
	return c.followLog(ctx, id, file, w)
}

// followLog copies until the container has ended, and then what is left: its
// log is whole before its end is told.
func (c *Client) followLog(ctx context.Context, id string, file *logFile, w *logWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Wait(ctx, id)
		ended <- err
	}()
	ticker := time.NewTicker(logPoll)
	defer ticker.Stop()
	for {
		if err := w.copy(file); err != nil {
			return err
		}
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			return w.copy(file)
		case <-ticker.C:
		}
	}
}

// logWriter writes records as lines.
type logWriter struct {
	options LogOptions
	out     map[crilog.Stream]*bufio.Writer
	// middle tells that the stream's last record was a part of a line.
	middle map[crilog.Stream]bool
}

func newLogWriter(o LogOptions, stdout, stderr io.Writer) *logWriter {
	return &logWriter{
		options: o,
		out:     map[crilog.Stream]*bufio.Writer{crilog.Stdout: bufio.NewWriter(stdout), crilog.Stderr: bufio.NewWriter(stderr)},
		middle:  map[crilog.Stream]bool{},
	}
}

// copy writes all records that are there now.
func (w *logWriter) copy(file *logFile) error {
	for {
		line, err := file.next()
		if err != nil {
			return err
		}
		if line == nil {
			return w.flush()
		}
		// A torn record, as a power cut leaves one, is skipped.
		if record, err := crilog.Parse(line); err == nil && !record.Time.Before(w.options.Since) {
			w.write(record)
		}
	}
}

// write leaves errors to flush: a bufio.Writer keeps its first.
func (w *logWriter) write(r crilog.Record) {
	out := w.out[r.Stream]
	if w.options.Timestamps && !w.middle[r.Stream] {
		_, _ = out.WriteString(r.Time.Format("2006-01-02T15:04:05.000000000Z07:00") + " ")
	}
	_, _ = out.Write(r.Text)
	if !r.Partial {
		_ = out.WriteByte('\n')
	}
	w.middle[r.Stream] = r.Partial
}

func (w *logWriter) flush() error {
	if err := w.out[crilog.Stdout].Flush(); err != nil {
		return err
	}
	return w.out[crilog.Stderr].Flush()
}

// HasTerminal tells whether the container was made with one.
func (c *Client) HasTerminal(ctx context.Context, id string) (bool, error) {
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return false, err
	}
	return resp.GetStatus().GetAnnotations()[apiv1.AnnotationTTY] == "true", nil
}
