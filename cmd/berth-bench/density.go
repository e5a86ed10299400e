package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func densityCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "density",
		Short: "Memory and CPU of the runtime's processes with --n pods up",
	}
	c.Flags().StringSliceVar(&o.Processes, "process", nil, "names or pids of the runtime's processes; default: found from the socket")
	c.Flags().DurationVar(&o.Poll, "poll", 10*time.Second, "for how long lists and stats are polled each second")
	return c
}

// settle is how long a runtime may calm down before its memory is measured.
const settle = 3 * time.Second

// density compares the runtime's memory without and with N idle pods, and
// measures its CPU time while lists and stats are polled as kubelet does.
func density(ctx context.Context, d *driver) (report, error) {
	find, err := d.finder()
	if err != nil {
		return report{}, err
	}
	// One pod up and down first, so that what is loaded once is loaded.
	warm, err := d.upMany(ctx, 1, 1)
	if err != nil {
		return report{}, err
	}
	if err := d.downMany(ctx, warm, 1); err != nil {
		return report{}, err
	}
	if err := pause(ctx, settle); err != nil {
		return report{}, err
	}
	idle, err := find.PSS()
	if err != nil {
		return report{}, err
	}
	pods, err := d.upMany(ctx, d.N, 4)
	if err != nil {
		return report{}, err
	}
	if err := pause(ctx, settle); err != nil {
		return report{}, err
	}
	full, err := find.PSS()
	if err != nil {
		return report{}, err
	}
	cpu, missing, err := d.pollCPU(ctx, find)
	if err != nil {
		return report{}, err
	}
	polled := single("CPU while polled each second", "% core", 100*cpu)
	polled.Missing = missing
	memory := single(fmt.Sprintf("PSS a pod at %d pods", d.N), "kB", float64(full.Bytes-idle.Bytes)/1024/float64(d.N))
	memory.Note = fmt.Sprintf("%d processes, %d without pods", full.Processes, idle.Processes)
	return report{Rows: []row{
		single("PSS without pods", "MB", float64(idle.Bytes)/1e6),
		single(fmt.Sprintf("PSS with %d pods", d.N), "MB", float64(full.Bytes)/1e6),
		memory,
		polled,
	}}, d.downMany(ctx, pods, 4)
}

// pollCPU makes every poll once a second for d.Poll and returns the runtime's
// CPU time as a share of a core, and which calls it did not answer.
func (d *driver) pollCPU(ctx context.Context, find finder) (cores float64, missing string, err error) {
	before, err := find.CPU()
	if err != nil {
		return 0, "", err
	}
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var unanswered, why []string
	for time.Since(began) < d.Poll {
		for _, p := range d.polls() {
			if err := p.call(ctx); err != nil && !slices.Contains(unanswered, p.name) {
				unanswered = append(unanswered, p.name)
				why = append(why, p.name+": "+complaint(err))
			}
		}
		select {
		case <-ctx.Done():
			return 0, "", ctx.Err()
		case <-tick.C:
		}
	}
	after, err := find.CPU()
	if err != nil {
		return 0, "", err
	}
	return (after - before).Seconds() / time.Since(began).Seconds(), strings.Join(why, "; "), nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
