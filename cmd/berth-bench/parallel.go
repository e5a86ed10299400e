package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func parallelCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "parallel",
		Short: "Pods a second, up and down, with --at of them at once",
	}
	c.Flags().IntVar(&o.At, "at", 8, "how many at once")
	return c
}

// parallel brings N pods up and then down, At at once.
func parallel(ctx context.Context, d *driver) (report, error) {
	if warm, err := d.upMany(ctx, d.Warmup, d.At); err != nil {
		return report{}, err
	} else if err := d.downMany(ctx, warm, d.At); err != nil {
		return report{}, err
	}
	var mu sync.Mutex
	var each samples
	pods := make([]*pod, d.N)
	began := time.Now()
	err := spread(ctx, d.N, d.At, func(ctx context.Context, i int) error {
		pods[i] = d.NewPod()
		var t timings
		if err := d.Up(ctx, pods[i], d.ContainerConfig(sleeper...), &t); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		each = append(each, t.by[podUp]...)
		return nil
	})
	if err != nil {
		return report{}, err
	}
	up := time.Since(began)
	began = time.Now()
	if err := d.downMany(ctx, pods, d.At); err != nil {
		return report{}, err
	}
	down := time.Since(began)
	at := fmt.Sprintf("%d at once", d.At)
	return report{Rows: []row{
		each.Row(podUp + ", " + at),
		single("pods up, "+at, "1/s", float64(d.N)/up.Seconds()),
		single("pods down, "+at, "1/s", float64(d.N)/down.Seconds()),
	}}, nil
}

// spread calls f for 0..n-1, at most width at once, and ends at the first
// error.
func spread(ctx context.Context, n, width int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(width, 1))
	for i := range n {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(ctx, i)
		})
	}
	return g.Wait()
}
