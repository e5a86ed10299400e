package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// report is what a run has found.
type report struct {
	Results  []result  `json:"results,omitempty"`
	Stages   []stage   `json:"stages,omitempty"`
	Verdicts []verdict `json:"verdicts,omitempty"`
}

// result is what one runtime has needed for one suite.
type result struct {
	Suite   string   `json:"suite"`
	Runtime string   `json:"runtime"`
	Samples []sample `json:"samples"`
	Starts  *starts  `json:"starts,omitempty"`
}

// middle is the median of what of gives for the samples.
func middle[S any, T time.Duration | int64 | float64](samples []S, of func(S) T) T {
	all := make([]T, len(samples))
	for n, s := range samples {
		all[n] = of(s)
	}
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

func (r result) wall() time.Duration {
	return middle(r.Samples, func(s sample) time.Duration { return s.Wall })
}

func (r result) synced() time.Duration {
	return middle(r.Samples, func(s sample) time.Duration { return s.Synced })
}

func (r result) cpu() time.Duration {
	return middle(r.Samples, func(s sample) time.Duration { return s.CPU })
}

func (r result) removed() time.Duration {
	return middle(r.Samples, func(s sample) time.Duration { return s.Removed })
}

func (r result) read() int64 { return middle(r.Samples, func(s sample) int64 { return s.Read }) }

func (r result) written() int64 { return middle(r.Samples, func(s sample) int64 { return s.Written }) }

func (r result) kept() int64 { return middle(r.Samples, func(s sample) int64 { return s.Kept }) }

func (r result) peak() int64 { return middle(r.Samples, func(s sample) int64 { return s.Peak }) }

func (r result) pss() int64 { return middle(r.Samples, func(s sample) int64 { return s.PSS }) }

// printSuite prints medians for people, and how many times as long as Berth the
// others have taken.
func printSuite(w io.Writer, u suite, results []result) {
	var berth time.Duration
	for _, r := range results {
		if r.Runtime == harness.Berth {
			berth = r.wall()
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n%s\twall s\tsynced s\tCPU s\tread MiB\twritten MiB\tdisk MiB\tpeak MiB\tPSS MiB\tremoved ms\tratio\t\n", u.Name)
	for _, r := range results {
		ratio := ""
		if berth > 0 && r.Runtime != harness.Berth {
			ratio = fmt.Sprintf("%.1fx", share(r.wall(), berth))
		}
		fmt.Fprintf(t, "  %s\t%.2f\t%.2f\t%.2f\t%d\t%d\t%d\t%d\t%d\t%.0f\t%s\t\n", r.Runtime,
			r.wall().Seconds(), r.synced().Seconds(), r.cpu().Seconds(), r.read()>>20,
			r.written()>>20, r.kept()>>20, r.peak()>>20, r.pss()>>20, milliseconds(r.removed()), ratio)
	}
	_ = t.Flush() // to a terminal or a pipe
	for _, r := range results {
		if r.Starts != nil {
			fmt.Fprintf(w, "  %s starts a container: %s\n", r.Runtime, r.Starts)
		}
	}
}

// write writes the report to a file.
func (r report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
