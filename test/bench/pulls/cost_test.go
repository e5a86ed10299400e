package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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

func TestWhatTheRegistryReadsFromTheDiskIsCounted(t *testing.T) {
	before, err := ownReads()
	if err != nil {
		t.Fatal(err)
	}
	// Direct, so that it does not come from the page cache.
	path := filepath.Join(t.TempDir(), "file")
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Skip(err) // a tmpfs
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	if _, err := f.ReadAt(page, 0); err != nil {
		t.Skip(err) // the file system reads no other way
	}
	after, err := ownReads()
	if err != nil || after-before < size {
		t.Errorf("%d bytes, want %d at least; %v", after-before, size, err)
	}
}
