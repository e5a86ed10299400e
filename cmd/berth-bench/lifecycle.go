package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sleeper is a command that does nothing for longer than any suite runs.
var sleeper = []string{"/bin/sleep", "1000000"}

// The rows of lifecycle that are sums of RPCs.
const (
	podUp   = "pod-up"
	podDown = "pod-down"
)

// timings collects samples by operation, in the order of their first use.
type timings struct {
	order []string
	by    map[string]samples
}

// Time runs f and records how long it took, unless it fails.
func (t *timings) Time(name string, f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("%s: %w", name, err)
	}
	t.Add(name, took)
	return took, nil
}

// Add records one sample.
func (t *timings) Add(name string, d time.Duration) {
	if t.by == nil {
		t.by = map[string]samples{}
	}
	if _, ok := t.by[name]; !ok {
		t.order = append(t.order, name)
	}
	t.by[name] = append(t.by[name], d)
}

// Rows returns a row for each operation.
func (t *timings) Rows() []row {
	var rows []row
	for _, name := range t.order {
		rows = append(rows, t.by[name].Row(name))
	}
	return rows
}

func lifecycleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lifecycle",
		Short: "Each RPC of a pod's life, one pod at a time; pod-up and pod-down are sums",
	}
}

// lifecycle takes one pod after the other through its life.
func lifecycle(ctx context.Context, d *driver) (report, error) {
	var t, warm timings
	for i := range d.Warmup + d.N {
		into := &t
		if i < d.Warmup {
			into = &warm
		}
		p := d.NewPod()
		if err := d.Up(ctx, p, d.ContainerConfig(sleeper...), into); err != nil {
			return report{}, err
		}
		if err := d.Down(ctx, p, into); err != nil {
			return report{}, err
		}
	}
	return report{Rows: t.Rows()}, nil
}

// Up makes the pod p with one container and starts it.
func (d *driver) Up(ctx context.Context, p *pod, c *cri.ContainerConfig, t *timings) error {
	// kubelet makes the container's log directory before it calls.
	if err := os.MkdirAll(filepath.Dir(p.LogPath), 0o755); err != nil {
		return err
	}
	run, err := t.Time("RunPodSandbox", func() error {
		r, err := d.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.Config, RuntimeHandler: d.Handler})
		p.ID = r.GetPodSandboxId()
		return err
	})
	if err != nil {
		return err
	}
	create, err := t.Time("CreateContainer", func() error {
		r, err := d.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
		p.Container = r.GetContainerId()
		return err
	})
	if err != nil {
		return err
	}
	start, err := t.Time("StartContainer", func() error {
		_, err := d.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: p.Container})
		return err
	})
	if err != nil {
		return err
	}
	t.Add(podUp, run+create+start)
	return nil
}

// Down stops and removes p and its container. The grace period is nothing: it
// is the runtime that is measured, not the workload.
func (d *driver) Down(ctx context.Context, p *pod, t *timings) error {
	steps := []struct {
		name string
		call func() error
	}{
		{"StopContainer", func() error {
			_, err := d.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: p.Container})
			return err
		}},
		{"RemoveContainer", func() error {
			_, err := d.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: p.Container})
			return err
		}},
		{"StopPodSandbox", func() error {
			_, err := d.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
			return err
		}},
		{"RemovePodSandbox", func() error {
			_, err := d.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
			return err
		}},
	}
	var sum time.Duration
	for _, s := range steps {
		took, err := t.Time(s.name, s.call)
		if err != nil {
			return err
		}
		sum += took
	}
	t.Add(podDown, sum)
	return os.RemoveAll(p.Config.LogDirectory)
}

// upMany brings n pods up, at most width at once, and returns them.
func (d *driver) upMany(ctx context.Context, n, width int) ([]*pod, error) {
	pods := make([]*pod, n)
	err := spread(ctx, n, width, func(ctx context.Context, i int) error {
		pods[i] = d.NewPod()
		return d.Up(ctx, pods[i], d.ContainerConfig(sleeper...), &timings{})
	})
	return pods, err
}

// downMany takes pods down, at most width at once.
func (d *driver) downMany(ctx context.Context, pods []*pod, width int) error {
	return spread(ctx, len(pods), width, func(ctx context.Context, i int) error {
		if pods[i] == nil {
			return errors.New("a pod that never was")
		}
		return d.Down(ctx, pods[i], &timings{})
	})
}
