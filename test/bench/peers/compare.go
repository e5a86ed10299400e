package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/berth-run/berth/test/bench/harness"
)

// threshold is what a figure has to reach: a ratio to the peer's, or a most.
type threshold struct {
	Ratio float64
	Most  float64
}

// thresholds are the promises of the first release, by figure.
var thresholds = map[figureKey]threshold{
	{"lifecycle, host network", "pod-up"}:       {Ratio: 8},
	{"lifecycle, bridge network", "pod-up"}:     {Ratio: 3},
	{"lifecycle, host network", "pod-down"}:     {Ratio: 5},
	{"lifecycle, bridge network", "pod-down"}:   {Ratio: 3},
	{"exec", "ExecSync"}:                        {Ratio: 7},
	{"exec", "ExecSync, 8 at once"}:             {Ratio: 8},
	{"density", "PSS a pod at 100 pods"}:        {Most: 60},
	{"density", "CPU while polled each second"}: {Most: 5},
	{"lists", "ListContainerStats"}:             {Most: 15},
	{"lists", "ListPodSandboxStats"}:            {Most: 15},
	{"probes", "CPU of a probe"}:                {Ratio: 5},
	{"logs", "log throughput, mean"}:            {Ratio: 6},
}

// line is one figure of both runtimes.
type line struct {
	Suite      string   `json:"suite"`
	Name       string   `json:"name"`
	Unit       string   `json:"unit"`
	Containerd *summary `json:"containerd,omitempty"`
	Berth      *summary `json:"berth,omitempty"`
	// Ratio says how many times better Berth is; 0 where it cannot be said.
	Ratio float64 `json:"ratio,omitempty"`
	// Wanted and Passed are there where a threshold is.
	Wanted string `json:"wanted,omitempty"`
	Passed *bool  `json:"passed,omitempty"`
}

// summary is one runtime's figure over the rounds: P50 is the median of the
// rounds' medians, or of their values.
type summary struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95,omitempty"`
	Max  float64 `json:"max,omitempty"`
	N    int     `json:"n,omitempty"`
	Note string  `json:"note,omitempty"`
	// Missing is the part of the work that the runtime did not do.
	Missing string `json:"missing,omitempty"`
}

// summarize joins the rounds of one figure; nil where there are none.
func summarize(rows []benchRow) *summary {
	if len(rows) == 0 {
		return nil
	}
	var s summary
	var middle, high []float64
	for _, r := range rows {
		s.N += r.N
		s.Max = max(s.Max, r.Max)
		s.Note, s.Missing = cmp.Or(s.Note, r.Note), cmp.Or(s.Missing, r.Missing)
		middle, high = append(middle, cmp.Or(r.P50, r.Value)), append(high, r.P95)
	}
	s.P50, s.P95 = median(middle), median(high)
	return &s
}

func median(v []float64) float64 {
	slices.Sort(v)
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// compare makes the lines of the table.
func compare(f *figures) []line {
	var lines []line
	for _, k := range f.order {
		by := f.by[k]
		l := line{Suite: k.Suite, Name: k.Row, Containerd: summarize(by[harness.Containerd]), Berth: summarize(by[harness.Berth])}
		for _, rows := range by {
			l.Unit = rows[0].Unit
		}
		if l.comparable() {
			l.Ratio = l.Containerd.P50 / l.Berth.P50
			if moreIsBetter(l.Unit) {
				l.Ratio = 1 / l.Ratio
			}
		}
		if t, ok := thresholds[k]; ok && l.Berth != nil {
			l.judge(t)
		}
		lines = append(lines, l)
	}
	return lines
}

// comparable tells whether both figures are there and of the same work.
func (l *line) comparable() bool {
	c, b := l.Containerd, l.Berth
	return c != nil && b != nil && c.P50 > 0 && b.P50 > 0 && c.Missing == b.Missing
}

func moreIsBetter(unit string) bool { return unit == "1/s" || unit == "MB/s" }

// judge sets Wanted and Passed.
func (l *line) judge(t threshold) {
	passed := l.Berth.P50 <= t.Most
	l.Wanted = fmt.Sprintf("<= %g %s", t.Most, l.Unit)
	if t.Ratio > 0 {
		if l.Containerd == nil {
			return
		}
		passed, l.Wanted = l.Ratio >= t.Ratio, fmt.Sprintf(">= %gx", t.Ratio)
	}
	l.Passed = &passed
}

// failures counts the thresholds that were missed.
func failures(lines []line) int {
	n := 0
	for _, l := range lines {
		if l.Passed != nil && !*l.Passed {
			n++
		}
	}
	return n
}

// printTable prints the lines for people; times are p50 (p95, max). Notes and
// what keeps figures from being compared follow.
func printTable(w io.Writer, lines []line) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	suite := ""
	for _, l := range lines {
		if l.Suite != suite {
			suite = l.Suite
			fmt.Fprintf(t, "\n%s\tcontainerd\tberth\tratio\twanted\t\n", suite)
		}
		ratio, verdict := "", ""
		if l.Ratio > 0 {
			ratio = fmt.Sprintf("%.1fx", l.Ratio)
		}
		if l.Passed != nil {
			verdict = map[bool]string{true: "pass", false: "FAIL"}[*l.Passed]
		}
		fmt.Fprintf(t, "  %s, %s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Unit, l.Containerd, l.Berth, ratio, l.Wanted, verdict)
	}
	_ = t.Flush() // to a terminal or a pipe
	for _, l := range lines {
		l.remark(w, harness.Containerd, l.Containerd)
		l.remark(w, harness.Berth, l.Berth)
	}
}

// remark prints what one runtime's figure does not say.
func (l *line) remark(w io.Writer, runtime string, s *summary) {
	if s == nil {
		return
	}
	if s.Missing != "" {
		fmt.Fprintf(w, "no ratio of %s, %s: %s did less: %s\n", l.Suite, l.Name, runtime, s.Missing)
	}
	if s.Note != "" && s.P50 != 0 {
		fmt.Fprintf(w, "%s, %s, %s: %s\n", l.Suite, l.Name, runtime, s.Note)
	}
}

// String is the summary in a cell.
func (s *summary) String() string {
	switch {
	case s == nil:
		return "-"
	case s.N > 0:
		return fmt.Sprintf("%.2f (%.2f, %.2f)", s.P50, s.P95, s.Max)
	case s.P50 == 0 && s.Note != "":
		return s.Note
	default:
		return fmt.Sprintf("%.2f", s.P50)
	}
}

// writeJSON writes the lines to a file.
func writeJSON(path string, lines []line) error {
	b, err := json.MarshalIndent(lines, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
