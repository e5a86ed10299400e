package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/berth-run/berth/test/bench/harness"
)

// two returns figures with one row for each runtime.
func two(key figureKey, containerd, berth benchRow) *figures {
	f := &figures{}
	containerd.Name, berth.Name = key.Row, key.Row
	f.Add(key.Suite, harness.Containerd, []benchRow{containerd})
	f.Add(key.Suite, harness.Berth, []benchRow{berth})
	return f
}

func TestRatioSaysHowManyTimesBetter(t *testing.T) {
	for _, c := range []struct {
		unit              string
		containerd, berth float64
		want              float64
	}{
		{"ms", 150, 15, 10},
		{"1/s", 40, 400, 10},
		{"MB/s", 45, 450, 10},
		{"kB", 6000, 60, 100},
		{"ms", 0, 15, 0},
	} {
		l := compare(two(figureKey{"s", "r"}, benchRow{Unit: c.unit, P50: c.containerd}, benchRow{Unit: c.unit, P50: c.berth}))
		if l[0].Ratio != c.want {
			t.Errorf("%v against %v %s: ratio %g, want %g", c.berth, c.containerd, c.unit, l[0].Ratio, c.want)
		}
	}
}

func TestFiguresOfUnequalWorkHaveNoRatio(t *testing.T) {
	key := figureKey{"density", "CPU while polled each second"}
	did, less := benchRow{Unit: "% core", Value: 47}, benchRow{Unit: "% core", Value: 1, Missing: "ListContainerStats: not implemented"}
	lines := compare(two(key, did, less))
	if lines[0].Ratio != 0 {
		t.Errorf("ratio %g", lines[0].Ratio)
	}
	var b bytes.Buffer
	printTable(&b, lines)
	if want := "berth did less: ListContainerStats: not implemented\n"; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
	did.Missing = less.Missing
	if l := compare(two(key, did, less)); l[0].Ratio != 47 {
		t.Errorf("the same missing: ratio %g", l[0].Ratio)
	}
}

func TestThresholdsAreJudged(t *testing.T) {
	up := figureKey{"lifecycle, host network", "pod-up"}
	pss := figureKey{"density", "PSS a pod at 100 pods"}
	for _, c := range []struct {
		key               figureKey
		unit              string
		containerd, berth float64
		want              bool
	}{
		{up, "ms", 160, 20, true},
		{up, "ms", 160, 21, false},
		{pss, "kB", 5700, 60, true},
		{pss, "kB", 5700, 61, false},
	} {
		l := compare(two(c.key, benchRow{Unit: c.unit, Value: c.containerd}, benchRow{Unit: c.unit, Value: c.berth}))
		if l[0].Passed == nil || *l[0].Passed != c.want {
			t.Errorf("%v: %g against %g: %+v", c.key, c.berth, c.containerd, l[0])
		}
		if missed := failures(l); (missed == 0) != c.want {
			t.Errorf("%v: %d failures", c.key, missed)
		}
	}
}

func TestEveryThresholdHasASuite(t *testing.T) {
	for k := range thresholds {
		found := false
		for _, run := range suiteRuns {
			found = found || run.Name == k.Suite
		}
		if !found {
			t.Errorf("no suite is called %q", k.Suite)
		}
	}
}

func TestRoundsAreJoinedByTheirMedian(t *testing.T) {
	s := summarize([]benchRow{{N: 5, P50: 3, P95: 9, Max: 10}, {N: 5, P50: 1, P95: 5, Max: 20}, {N: 5, P50: 2, P95: 7, Max: 5}})
	if s.P50 != 2 || s.P95 != 7 || s.Max != 20 || s.N != 15 {
		t.Errorf("summary %+v", *s)
	}
	if s := summarize([]benchRow{{Value: 1}, {Value: 4}}); s.P50 != 2.5 {
		t.Errorf("median of two values: %g", s.P50)
	}
	if summarize(nil) != nil {
		t.Error("no rows, but a summary")
	}
}

func TestTableShowsNotesAndMissingRuntimes(t *testing.T) {
	f := &figures{}
	f.Add("lists", harness.Berth, []benchRow{{Name: "ListContainerStats", Unit: "ms", Note: "not implemented"}})
	var b bytes.Buffer
	printTable(&b, compare(f))
	if !strings.Contains(b.String(), "not implemented") || !strings.Contains(b.String(), "-") {
		t.Errorf("table:\n%s", b.String())
	}
}
