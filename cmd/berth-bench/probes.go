package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

func probesCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "probes",
		Short: "CPU of the runtime's processes while --n pods are probed by ExecSync, each once a second",
	}
	c.Flags().StringSliceVar(&o.Processes, "process", nil, "names or pids of the runtime's processes; default: found from the socket")
	c.Flags().DurationVar(&o.Poll, "poll", time.Minute, "for how long")
	return c
}

// probes runs true in each of N containers once a second, as kubelet's probes do,
// evenly over the second. What the probes themselves use counts: they are the
// runtime's children.
func probes(ctx context.Context, d *driver) (report, error) {
	find, err := d.finder()
	if err != nil {
		return report{}, err
	}
	pods, err := d.upMany(ctx, d.N, 4)
	if err != nil {
		return report{}, err
	}
	if err := d.execTrue(ctx, pods[0]); err != nil {
		return report{}, err
	}
	if err := pause(ctx, settle); err != nil {
		return report{}, err
	}
	before, err := find.CPU()
	if err != nil {
		return report{}, err
	}
	began := time.Now()
	took, late, err := d.probe(ctx, pods)
	if err != nil {
		return report{}, err
	}
	after, err := find.CPU()
	if err != nil {
		return report{}, err
	}
	used := (after - before).Seconds()
	cpu := single(fmt.Sprintf("CPU with %d probes a second", d.N), "% core", 100*used/time.Since(began).Seconds())
	each := single("CPU of a probe", "ms", 1000*used/float64(len(took)))
	if late > 0 { // then only what one costs can be compared
		cpu.Missing = fmt.Sprintf("%d of %d probes, due while the one before still ran", late, late+len(took))
	}
	return report{Rows: []row{cpu, each, took.Row("ExecSync of a probe")}}, d.downMany(ctx, pods, 4)
}

// probe probes for d.Poll. A probe that is due while the container's last one still
// runs is left out, and counted.
func (d *driver) probe(ctx context.Context, pods []*pod) (took samples, late int, failed error) {
	var (
		mu   sync.Mutex
		busy = make([]bool, len(pods))
		wg   sync.WaitGroup
	)
	tick := time.NewTicker(time.Second / time.Duration(len(pods)))
	defer tick.Stop()
	one := func(i int) {
		began := time.Now()
		err := d.execTrue(ctx, pods[i])
		mu.Lock()
		defer mu.Unlock()
		busy[i] = false
		took = append(took, time.Since(began))
		if failed == nil {
			failed = err
		}
	}
	for i, end := 0, time.Now().Add(d.Poll); time.Now().Before(end) && ctx.Err() == nil; i = (i + 1) % len(pods) {
		<-tick.C
		mu.Lock()
		if busy[i] {
			late++
		} else {
			busy[i] = true
			wg.Go(func() { one(i) })
		}
		mu.Unlock()
	}
	wg.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	return took, late, failed
}
