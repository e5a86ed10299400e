package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// report is what a suite found. Its JSON form is read by test/bench/peers.
type report struct {
	Suite    string `json:"suite"`
	Endpoint string `json:"endpoint"`
	Runtime  string `json:"runtime"`
	Rows     []row  `json:"rows"`
}

// row is one figure: a distribution (N, P50, P95, Max) or a single Value.
type row struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// N is the number of samples; 0 where there is a single Value.
	N     int     `json:"n,omitempty"`
	P50   float64 `json:"p50,omitempty"`
	P95   float64 `json:"p95,omitempty"`
	Max   float64 `json:"max,omitempty"`
	Value float64 `json:"value,omitempty"`
	// Note says why there is no figure, or what it depends on.
	Note string `json:"note,omitempty"`
	// Missing is the part of the work that the runtime did not do: the figure
	// cannot be compared with that of one that did.
	Missing string `json:"missing,omitempty"`
}

// samples are durations of one operation.
type samples []time.Duration

// Row summarises s in milliseconds.
func (s samples) Row(name string) row {
	if len(s) == 0 {
		return row{Name: name, Unit: "ms", Note: "no samples"}
	}
	sorted := slices.Sorted(slices.Values(s))
	return row{
		Name: name, Unit: "ms", N: len(s),
		P50: milliseconds(percentile(sorted, 0.50)),
		P95: milliseconds(percentile(sorted, 0.95)),
		Max: milliseconds(sorted[len(sorted)-1]),
	}
}

// percentile returns the smallest sample that at least the share p of all
// samples does not exceed (nearest rank). sorted must not be empty.
func percentile(sorted []time.Duration, p float64) time.Duration {
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

// single is a row with one value.
func single(name, unit string, value float64) row {
	return row{Name: name, Unit: unit, Value: math.Round(value*1000) / 1000}
}

// JSON writes r as one object.
func (r report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes r for people.
func (r report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s, %s\n", r.Suite, r.Runtime)
	fmt.Fprintln(t, "n\tp50\tp95\tmax\tvalue\tunit\t  \v")
	for _, x := range r.Rows {
		if x.N > 0 {
			fmt.Fprintf(t, "%d\t%.2f\t%.2f\t%.2f\t\t%s\t  %s\v%s\n", x.N, x.P50, x.P95, x.Max, x.Unit, x.Name, note(x))
			continue
		}
		fmt.Fprintf(t, "\t\t\t\t%.2f\t%s\t  %s\v%s\n", x.Value, x.Unit, x.Name, note(x))
	}
	return t.Flush()
}

func note(x row) string {
	out := ""
	if x.Note != "" {
		out = " (" + x.Note + ")"
	}
	if x.Missing != "" {
		out += " (without " + x.Missing + ")"
	}
	return out
}
