package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// missed returns the figures whose limits were missed.
func missed(all []verdict) string {
	var names []string
	for _, v := range all {
		if !v.Passed {
			names = append(names, v.Figure)
		}
	}
	return strings.Join(names, "; ")
}

func TestBerthIsJudgedAgainstContainerd(t *testing.T) {
	of := func(runtime string, s ...sample) result { return result{Runtime: runtime, Samples: s} }
	containerd := of(harness.Containerd, sample{Wall: 10 * time.Second, CPU: 9 * time.Second, Written: 1000})
	tuned := of(harness.TunedContainerd, sample{Wall: 4 * time.Second, CPU: 30 * time.Second, Written: 9000})
	u := suite{Wanted: wanted{Default: 5, Tuned: 2, CPU: 1. / 3, Written: 0.75}}
	for _, c := range []struct {
		berth sample
		want  string
	}{
		{sample{Wall: 2 * time.Second, CPU: 3 * time.Second, Written: 750}, ""},
		{sample{Wall: 2100 * time.Millisecond, CPU: 3 * time.Second, Written: 750}, "faster than containerd; faster than tuned containerd"},
		{sample{Wall: time.Second, CPU: 3100 * time.Millisecond, Written: 750}, "CPU time of containerd's"},
		{sample{Wall: time.Second, CPU: time.Second, Written: 751}, "bytes written of containerd's"},
	} {
		got := u.judge([]result{containerd, tuned, of(harness.Berth, c.berth)}, 1000)
		if len(got) != 4 || missed(got) != c.want {
			t.Errorf("%v: %+v, want %q missed", c.berth, got, c.want)
		}
	}
	if got := u.judge([]result{containerd, tuned}, 1000); len(got) != 0 {
		t.Errorf("without Berth: %+v", got)
	}
}

func TestTheWorstPullIsJudgedByWhatItMayTake(t *testing.T) {
	u := suite{Wanted: wanted{Disk: 1.05, PSS: 200e6, Removal: 100 * time.Millisecond, Start: 1.2}}
	good := sample{Peak: 1050, Kept: 1000, PSS: 200e6, Removed: 100 * time.Millisecond}
	for _, c := range []struct {
		last    sample
		busybox float64
		want    string
	}{
		{good, 10, ""},
		{sample{Peak: 1051, Kept: 1001}, 10, "disk at its highest, of what the image takes"},
		{sample{Kept: 1000, PSS: 201e6}, 10, "PSS at its highest"},
		{sample{Kept: 1000, Removed: 101 * time.Millisecond}, 10, "slowest removal"},
		{good, 9.9, "container start of busybox's, p50"},
	} {
		r := result{Runtime: harness.Berth, Samples: []sample{good, good, c.last}, Starts: &starts{Image: times{P50: 12}, Busybox: times{P50: c.busybox}}}
		got := u.judge([]result{r}, 5000)
		if len(got) != 4 || missed(got) != c.want {
			t.Errorf("%+v: %+v, want %q missed", c.last, got, c.want)
		}
	}
	r := result{Runtime: harness.Berth, Samples: []sample{{Peak: 2000, Kept: 2000}}}
	if got := u.judge([]result{r}, 1000); got[0].Value != 2 {
		t.Errorf("what stays is twice what the image has: %+v", got[0])
	}
}

func TestTheWholeIsJudgedAgainstItsSlowestStage(t *testing.T) {
	runs := func(d time.Duration) []stageRun { return []stageRun{{Wall: d, CPU: d}} }
	all := []stage{{Name: "fetch", Runs: runs(time.Second)}, {Name: "write", Runs: runs(2 * time.Second)}}
	whole := result{Samples: []sample{{Wall: 3 * time.Second}}}
	u := suite{Wanted: wanted{Slowest: 1.4}}
	if got := u.judgeStages(all, whole); len(got) != 1 || got[0].Passed || got[0].Value != 1.5 || !strings.Contains(got[0].Figure, "write") {
		t.Errorf("%+v", got)
	}
	var b bytes.Buffer
	printStages(&b, all, whole)
	if !strings.Contains(b.String(), "fetch") || !strings.Contains(b.String(), "3.00x") {
		t.Errorf("table:\n%s", b.String())
	}
}

func TestVerdictsArePrinted(t *testing.T) {
	v := verdicts{suite: "s"}
	v.least(5, 6, "x", "faster")
	v.most(100, 101, "ms", "removal")
	v.most(0, 7, "x", "only shown")
	var b bytes.Buffer
	printVerdicts(&b, v.all)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 || failures(v.all) != 1 || !strings.Contains(lines[0], "pass") || !strings.Contains(lines[1], "FAIL") {
		t.Errorf("%d failures:\n%s", failures(v.all), b.String())
	}
}

func TestSuitesAreChosenByName(t *testing.T) {
	some, err := suites("torch,files")
	if err != nil || len(some) != 2 || some[0].Name != "torch" || some[1].Name != "files" {
		t.Error(some, err)
	}
	if _, err := suites("torc"); err == nil {
		t.Error("a suite that is none is run")
	}
	if some, err := suites(""); err != nil || len(some) != len(allSuites) {
		t.Error(some, err)
	}
}

func TestMediansAndPercentiles(t *testing.T) {
	if m := middle([]float64{3, 1, 2}, func(f float64) float64 { return f }); m != 2 {
		t.Error(m)
	}
	if got := timesOf([]float64{5, 1, 4, 2, 3}); got.P50 != 3 || got.P95 != 5 || got.Max != 5 || got.N != 5 {
		t.Errorf("%+v", got)
	}
}
