package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// logLine is what the container writes over and over: 100 bytes.
var logLine = append(bytes.Repeat([]byte("0123456789abcdefghijklmno"), 4)[:99], '\n')

func logsCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "logs",
		Short: "Throughput of one container's log, in lines of 100 bytes",
	}
	c.Flags().Int64Var(&o.Bytes, "bytes", 128<<20, "how much the container writes")
	return c
}

// logs has a container write the same file to its stdout, N times.
func logs(ctx context.Context, d *driver) (report, error) {
	lines := int(d.Bytes / int64(len(logLine)))
	source := filepath.Join(d.logs, "lines")
	if err := os.WriteFile(source, bytes.Repeat(logLine, lines), 0o644); err != nil {
		return report{}, err
	}
	megabytes := float64(lines*len(logLine)) / 1e6
	var each samples
	rates := 0.0
	for range d.N {
		took, err := d.logOnce(ctx, source, lines)
		if err != nil {
			return report{}, err
		}
		each = append(each, took)
		rates += megabytes / took.Seconds()
	}
	return report{Rows: []row{
		each.Row(fmt.Sprintf("log of %.0f MB", megabytes)),
		single("log throughput, mean", "MB/s", rates/float64(len(each))),
	}}, nil
}

// logOnce measures from when StartContainer returns until the last byte is in
// the log, and then counts the lines.
func (d *driver) logOnce(ctx context.Context, source string, lines int) (time.Duration, error) {
	p := d.NewPod()
	c := d.ContainerConfig("/bin/cat", "/lines")
	c.Mounts = []*cri.Mount{{HostPath: source, ContainerPath: "/lines", Readonly: true}}
	if err := d.Up(ctx, p, c, &timings{}); err != nil {
		return 0, err
	}
	began := time.Now()
	last, err := d.awaitLog(ctx, p, began)
	if err != nil {
		return 0, err
	}
	got, err := countLines(p.LogPath)
	if err != nil {
		return 0, err
	}
	if got != lines {
		return 0, fmt.Errorf("log %s has %d lines of %d", p.LogPath, got, lines)
	}
	return last.Sub(began), d.Down(ctx, p, &timings{})
}

// awaitLog waits until the container has exited and its log has been still for
// a while, and returns when the log last grew, as seen each 2 ms.
func (d *driver) awaitLog(ctx context.Context, p *pod, began time.Time) (last time.Time, err error) {
	const still = 300 * time.Millisecond
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var size int64
	exited := false
	for last = began; ; {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-tick.C:
		}
		info, err := os.Stat(p.LogPath)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return last, err
		}
		if err == nil && info.Size() > size {
			size, last = info.Size(), time.Now()
		}
		if time.Since(last) < still {
			continue
		}
		if exited && size > 0 {
			return last, nil
		}
		if exited, err = d.hasExited(ctx, p); err != nil {
			return last, err
		}
	}
}

func (d *driver) hasExited(ctx context.Context, p *pod) (bool, error) {
	r, err := d.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: p.Container})
	if err != nil {
		return false, err
	}
	return r.GetStatus().GetState() == cri.ContainerState_CONTAINER_EXITED, nil
}

// countLines counts the line ends in the file.
func countLines(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, buf := 0, make([]byte, 1<<20)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
