package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestPercentileIsNearestRank(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{hundred, 0.50, 50},
		{hundred, 0.95, 95},
		{hundred, 1, 100},
		{hundred, 0, 1},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{1, 9}, 0.5, 1},
		{[]time.Duration{1, 9}, 0.95, 9},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile of %d samples at %g = %d, want %d", len(c.sorted), c.p, got, c.want)
		}
	}
}

func TestRowDoesNotReorderSamples(t *testing.T) {
	s := samples{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}
	r := s.Row("x")
	if r.P50 != 2 || r.Max != 3 || r.N != 3 {
		t.Errorf("row = %+v", r)
	}
	if s[0] != 3*time.Millisecond {
		t.Error("Row sorted its receiver")
	}
	if r := (samples{}).Row("none"); r.N != 0 || r.Note == "" {
		t.Errorf("row without samples = %+v", r)
	}
}

func TestTableShowsEveryRow(t *testing.T) {
	var b bytes.Buffer
	r := report{Suite: "lists", Runtime: "r 1", Rows: []row{
		samples{time.Millisecond}.Row("ListContainers"),
		{Name: "ListContainerStats", Unit: "ms", Note: "not implemented"},
		single("rate", "1/s", 12.34),
	}}
	if err := r.Table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lists, r 1", "1.00", "ListContainerStats (not implemented)", "12.34"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, b.String())
		}
	}
}
