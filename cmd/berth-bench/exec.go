package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func execCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec",
		Short: "ExecSync of true: one at a time, and --at of them at once",
	}
	c.Flags().IntVar(&o.At, "at", 8, "how many at once")
	return c
}

// execSync runs true in one container, N times in a row and N times spread.
func execSync(ctx context.Context, d *driver) (report, error) {
	p := d.NewPod()
	if err := d.Up(ctx, p, d.ContainerConfig(sleeper...), &timings{}); err != nil {
		return report{}, err
	}
	for range d.Warmup {
		if err := d.execTrue(ctx, p); err != nil {
			return report{}, err
		}
	}
	var t timings
	for range d.N {
		if _, err := t.Time("ExecSync", func() error { return d.execTrue(ctx, p) }); err != nil {
			return report{}, err
		}
	}
	each := make(samples, d.N)
	began := time.Now()
	err := spread(ctx, d.N, d.At, func(ctx context.Context, i int) error {
		began := time.Now()
		err := d.execTrue(ctx, p)
		each[i] = time.Since(began)
		return err
	})
	if err != nil {
		return report{}, err
	}
	rate := float64(d.N) / time.Since(began).Seconds()
	rows := append(t.Rows(),
		each.Row(fmt.Sprintf("ExecSync, each of %d at once", d.At)),
		single(fmt.Sprintf("ExecSync, %d at once", d.At), "1/s", rate))
	return report{Rows: rows}, d.Down(ctx, p, &timings{})
}

func (d *driver) execTrue(ctx context.Context, p *pod) error {
	r, err := d.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: p.Container, Cmd: []string{"/bin/true"}, Timeout: 30})
	if err != nil {
		return err
	}
	if r.GetExitCode() != 0 {
		return fmt.Errorf("true exited with %d: %s", r.GetExitCode(), r.GetStderr())
	}
	return nil
}
