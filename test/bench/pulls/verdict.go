package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// wanted is what a suite's figures have to be; zero for one that is only shown.
type wanted struct {
	// Default and Tuned are how many times faster than containerd a pull has to be.
	Default, Tuned float64
	// CPU and Written are shares of what containerd needs by default.
	CPU, Written float64
	// Disk is a share of what the image takes, of its tar streams or of what stays of
	// the pull, whichever is less. PSS is in bytes.
	Disk float64
	PSS  int64
	// Removal is how long it may take.
	Removal time.Duration
	// Start is how many times longer than from busybox it may take to start a
	// container.
	Start float64
	// Slowest is how many times longer than its slowest stage alone a pull may take.
	Slowest float64
}

// verdict is one figure that is judged.
type verdict struct {
	Suite  string  `json:"suite"`
	Figure string  `json:"figure"`
	Unit   string  `json:"unit"`
	Value  float64 `json:"value"`
	Limit  float64 `json:"limit"`
	Least  bool    `json:"least,omitempty"` // the limit is the least, not the most
	Passed bool    `json:"passed"`
}

// verdicts are those of one suite.
type verdicts struct {
	suite string
	all   []verdict
}

func (v *verdicts) most(limit float64, value float64, unit, figure string) {
	if limit > 0 {
		v.all = append(v.all, verdict{v.suite, figure, unit, value, limit, false, value <= limit})
	}
}

func (v *verdicts) least(limit float64, value float64, unit, figure string) {
	if limit > 0 {
		v.all = append(v.all, verdict{v.suite, figure, unit, value, limit, true, value >= limit})
	}
}

// judge compares Berth, where it took part, with the others and with what is
// wanted: the medians, but the worst sample where a limit is for each pull. unpacked is how many bytes the image's tar streams have.
func (u suite) judge(results []result, unpacked int64) []verdict {
	by := map[string]result{}
	for _, r := range results {
		by[r.Runtime] = r
	}
	berth, ok := by[harness.Berth]
	if !ok {
		return nil
	}
	var (
		v, w      = &verdicts{suite: u.Name}, u.Wanted
		peak, pss int64
		removed   time.Duration
	)
	if c, ok := by[harness.Containerd]; ok {
		v.least(w.Default, share(c.wall(), berth.wall()), "x", "faster than containerd")
		v.most(w.CPU, share(berth.cpu(), c.cpu()), "x", "CPU time of containerd's")
		v.most(w.Written, share(berth.written(), c.written()), "x", "bytes written of containerd's")
	}
	if c, ok := by[harness.TunedContainerd]; ok {
		v.least(w.Tuned, share(c.wall(), berth.wall()), "x", "faster than tuned containerd")
	}
	for _, s := range berth.Samples {
		peak, pss, removed = max(peak, s.Peak), max(pss, s.PSS), max(removed, s.Removed)
	}
	v.most(w.Disk, share(peak, min(unpacked, berth.kept())), "x", "disk at its highest, of what the image takes")
	v.most(float64(w.PSS)/1e6, float64(pss)/1e6, "MB", "PSS at its highest")
	v.most(milliseconds(w.Removal), milliseconds(removed), "ms", "slowest removal")
	if berth.Starts != nil {
		v.most(w.Start, share(berth.Starts.Image.P50, berth.Starts.Busybox.P50), "x", "container start of busybox's, p50")
	}
	return v.all
}

// share is how much a is of b; 0 where b is nothing.
func share[T time.Duration | int64 | float64](a, b T) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// failures counts the limits that were missed.
func failures(all []verdict) int {
	n := 0
	for _, v := range all {
		if !v.Passed {
			n++
		}
	}
	return n
}

// printVerdicts prints them for people.
func printVerdicts(w io.Writer, all []verdict) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range all {
		sign := map[bool]string{true: ">=", false: "<="}[v.Least]
		passed := map[bool]string{true: "pass", false: "FAIL"}[v.Passed]
		fmt.Fprintf(t, "  %s\t%.2f %s\t%s %.2f\t%s\t\n", v.Figure, v.Value, v.Unit, sign, v.Limit, passed)
	}
	_ = t.Flush() // to a terminal or a pipe
}
