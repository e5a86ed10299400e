package main

import (
	"testing"

	"github.com/berth-run/berth/test/bench/harness"
)

func TestMemoryIsLookedAtOnlyWhereItGrows(t *testing.T) {
	var p peakMemory
	looks := 0
	for _, rss := range []int64{100, 101, 105, 120, 121, 90, 120, 200} {
		if p.worth(rss) {
			looks++
			p.add(harness.Memory{PSS: rss - 20, RSS: rss})
		}
	}
	if looks != 3 || p.peak(200) != 180 {
		t.Errorf("%d looks, peak %d", looks, p.peak(200))
	}
}

func TestAPeakBetweenTwoLooksCounts(t *testing.T) {
	p := peakMemory{}
	p.add(harness.Memory{PSS: 80, RSS: 100})
	if got := p.peak(150); got != 130 {
		t.Errorf("peak %d, want the 50 that nobody saw too", got)
	}
	if got := p.peak(99); got != 80 { // the kernel counts in batches
		t.Errorf("peak %d", got)
	}
}
