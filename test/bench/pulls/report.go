package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// result is what one runtime has needed for one suite.
type result struct {
	Suite   string   `json:"suite"`
	Runtime string   `json:"runtime"`
	Samples []sample `json:"samples"`
	// Ratio says how many times faster Berth is; 0 for Berth itself.
	Ratio float64 `json:"ratio,omitempty"`
	// Wanted is the least ratio; 0 where there is none.
	Wanted float64 `json:"wanted,omitempty"`
}

// middle is the median of what of gives for the samples.
func middle[T time.Duration | int64](samples []sample, of func(sample) T) T {
	all := make([]T, len(samples))
	for n, s := range samples {
		all[n] = of(s)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (r result) wall() time.Duration {
	return middle(r.Samples, func(s sample) time.Duration { return s.Wall })
}

// judge compares the others with Berth, where it took part.
func (u suite) judge(results []result) {
	var berth time.Duration
	for _, r := range results {
		if r.Runtime == harness.Berth {
			berth = r.wall()
		}
	}
	for n, r := range results {
		if berth == 0 || r.Runtime == harness.Berth {
			continue
		}
		results[n].Ratio = float64(r.wall()) / float64(berth)
		results[n].Wanted = map[string]float64{harness.Containerd: u.Default, harness.TunedContainerd: u.Tuned}[r.Runtime]
	}
}

// failures counts the thresholds that were missed.
func failures(all []result) int {
	n := 0
	for _, r := range all {
		if r.Ratio > 0 && r.Ratio < r.Wanted {
			n++
		}
	}
	return n
}

// printSuite prints medians for people.
func printSuite(w io.Writer, u suite, results []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n%s\twall s\tsynced s\tCPU s\twritten MiB\tdisk MiB\tpeak MiB\tPSS MiB\tremoved ms\tratio\t\n", u.Name)
	for _, r := range results {
		seconds := func(of func(sample) time.Duration) float64 { return middle(r.Samples, of).Seconds() }
		mib := func(of func(sample) int64) int64 { return middle(r.Samples, of) >> 20 }
		verdict := ""
		if r.Ratio > 0 {
			verdict = fmt.Sprintf("%.1fx", r.Ratio)
		}
		if r.Wanted > 0 {
			verdict += fmt.Sprintf(" (>= %gx: %s)", r.Wanted, map[bool]string{true: "pass", false: "FAIL"}[r.Ratio >= r.Wanted])
		}
		fmt.Fprintf(t, "  %s\t%.2f\t%.2f\t%.2f\t%d\t%d\t%d\t%d\t%.0f\t%s\t\n", r.Runtime,
			r.wall().Seconds(), seconds(func(s sample) time.Duration { return s.Synced }), seconds(func(s sample) time.Duration { return s.CPU }),
			mib(func(s sample) int64 { return s.Written }), mib(func(s sample) int64 { return s.Kept }),
			mib(func(s sample) int64 { return s.Peak }), mib(func(s sample) int64 { return s.PSS }),
			seconds(func(s sample) time.Duration { return s.Removed })*1000, verdict)
	}
	_ = t.Flush() // to a terminal or a pipe
}
