package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
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
	var rates []float64
	for range d.N {
		took, err := d.logOnce(ctx, source, lines)
		if err != nil {
			return report{}, err
		}
		rates = append(rates, float64(lines*len(logLine))/1e6/took.Seconds())
	}
	best, sum := 0.0, 0.0
	for _, r := range rates {
		best = math.Max(best, r)
		sum += r
	}
	return report{Rows: []row{
		single("log throughput, mean", "MB/s", sum/float64(len(rates))),
		single("log throughput, best", "MB/s", best),
	}}, nil
}

// logOnce measures from StartContainer until the last byte is in the log, and
// then counts the lines.
func (d *driver) logOnce(ctx context.Context, source string, lines int) (time.Duration, error) {
	p := d.NewPod()
	c := d.ContainerConfig("/bin/cat", "/lines")
	c.Mounts = []*cri.Mount{{HostPath: source, ContainerPath: "/lines", Readonly: true}}
	began := time.Now()
	if err := d.Up(ctx, p, c, &timings{}); err != nil {
		return 0, err
	}
	took, err := d.awaitLog(ctx, p, began)
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
	return took, d.Down(ctx, p, &timings{})
}

// awaitLog returns when the log last grew, once the container has exited and
// the log has been still for a while. The time counts from began or, as the
// pod's start is not to be measured, from the log's first byte.
func (d *driver) awaitLog(ctx context.Context, p *pod, began time.Time) (time.Duration, error) {
	const still = 300 * time.Millisecond
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var size int64
	first, last, exited := time.Time{}, began, false
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		info, err := os.Stat(p.LogPath)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		if err == nil && info.Size() > size {
			size, last = info.Size(), time.Now()
			if first.IsZero() {
				first = last.Add(-2 * time.Millisecond)
			}
		}
		if time.Since(last) < still {
			continue
		}
		if exited && size > 0 {
			return last.Sub(first), nil
		}
		if exited, err = d.hasExited(ctx, p); err != nil {
			return 0, err
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
