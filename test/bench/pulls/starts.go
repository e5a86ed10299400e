package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/berth-run/berth/test/bench/harness"
)

// startsEach is how many containers are started from each of the two images.
const startsEach = 30

// starts says how long it takes until a container runs: RunPodSandbox with the
// host's network, CreateContainer and StartContainer.
type starts struct {
	Image   times `json:"image"`
	Busybox times `json:"busybox"`
}

// times are in milliseconds.
type times struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
	N   int     `json:"n"`
}

func (s *starts) String() string {
	return fmt.Sprintf("p50 (p95, max) ms %.1f (%.1f, %.1f), from busybox %.1f (%.1f, %.1f), %d of each",
		s.Image.P50, s.Image.P95, s.Image.Max, s.Busybox.P50, s.Busybox.P95, s.Busybox.Max, s.Image.N)
}

// timesOf sorts the samples.
func timesOf(samples []float64) times {
	slices.Sort(samples)
	at := func(percent int) float64 { return samples[min(len(samples)*percent/100, len(samples)-1)] }
	return times{P50: at(50), P95: at(95), Max: samples[len(samples)-1], N: len(samples)}
}

// startContainers starts containers from the image, which the runtime has, and from
// busybox in turn. Each pod is removed before the next is made.
func startContainers(ctx context.Context, s settings, d *harness.Daemon) (*starts, error) {
	var image, busybox []float64
	for n := range startsEach + 1 {
		a, err := startContainer(ctx, s, d, ref)
		if err != nil {
			return nil, err
		}
		b, err := startContainer(ctx, s, d, harness.BusyboxRef)
		if err != nil {
			return nil, err
		}
		if n > 0 { // the first of each warms up
			image, busybox = append(image, a), append(busybox, b)
		}
	}
	return &starts{Image: timesOf(image), Busybox: timesOf(busybox)}, nil
}

// startContainer calls berth-bench for one pod, and returns milliseconds.
func startContainer(ctx context.Context, s settings, d *harness.Daemon, image string) (float64, error) {
	c := exec.CommandContext(ctx, filepath.Join(s.Bin, "berth-bench"), "lifecycle", "--json", "--network", "host",
		"--endpoint", "unix://"+d.Socket, "--image", image, "--n", "1", "--warmup", "0",
		"--cgroup-parent", harness.CgroupParent+"/"+d.Name, "--log-dir", filepath.Join(s.Dir, "logs"))
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return 0, fmt.Errorf("start a container from %s: %w", image, err)
	}
	var r struct {
		Rows []struct {
			Name string  `json:"name"`
			P50  float64 `json:"p50"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, fmt.Errorf("read berth-bench's report: %w", err)
	}
	for _, row := range r.Rows {
		if row.Name == "pod-up" {
			return row.P50, nil
		}
	}
	return 0, fmt.Errorf("berth-bench's report has no pod-up")
}
