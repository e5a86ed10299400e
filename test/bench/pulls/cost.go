package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/bench/harness"
)

// sample is what one pull has cost.
type sample struct {
	Wall    time.Duration `json:"wall_ns"`
	Synced  time.Duration `json:"synced_ns"` // until all of it was on disk
	CPU     time.Duration `json:"cpu_ns"`
	Read    int64         `json:"read_bytes"` // from the disk
	Written int64         `json:"written_bytes"`
	Peak    int64         `json:"peak_disk_bytes"` // more than before, while it ran
	Kept    int64         `json:"disk_bytes"`      // more than before, at its end
	PSS     int64         `json:"pss_bytes"`       // at its peak
	Removed time.Duration `json:"removed_ns"`
}

func (s sample) String() string {
	return fmt.Sprintf("%.2f s (%.2f s until synced), %.2f s CPU, %d MiB written, %d read, disk %d MiB (%d at its peak), PSS %d MiB, removed in %d ms",
		s.Wall.Seconds(), s.Synced.Seconds(), s.CPU.Seconds(), s.Written>>20, s.Read>>20, s.Kept>>20, s.Peak>>20, s.PSS>>20, s.Removed.Milliseconds())
}

// meter samples until its end is asked for.
type meter struct {
	daemon        *harness.Daemon
	disk          harness.Disk
	began         time.Time
	cpu           time.Duration
	read, written int64
	used          int64
	own           int64 // read from the disk by this program

	stop   chan struct{}
	done   sync.WaitGroup
	peak   int64
	memory peakMemory
	failed error
}

const sampleEvery = 50 * time.Millisecond

// begin begins to measure a runtime.
func begin(d *harness.Daemon, disk harness.Disk) (*meter, error) {
	m := &meter{daemon: d, disk: disk, stop: make(chan struct{})}
	var err error
	if m.read, m.written, err = disk.Traffic(); err != nil {
		return nil, err
	}
	if m.used, err = disk.Used(); err != nil {
		return nil, err
	}
	if m.own, err = ownReads(); err != nil {
		return nil, err
	}
	if err = d.ForgetHighRSS(); err != nil {
		return nil, err
	}
	if m.cpu, err = d.CPU(); err != nil {
		return nil, err
	}
	m.began = time.Now()
	m.done.Go(m.watch)
	return m, nil
}

// watch looks for the peaks.
func (m *meter) watch() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if m.failed = m.look(); m.failed != nil {
			return
		}
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
	}
}

func (m *meter) look() error {
	used, err := m.disk.Used()
	if err != nil {
		return err
	}
	m.peak = max(m.peak, used-m.used)
	rss, err := m.daemon.RSS()
	if err != nil || !m.memory.worth(rss) {
		return err
	}
	now, err := m.daemon.Memory()
	m.memory.add(now)
	return err
}

// peakMemory finds the highest PSS with few looks at it: one walks all pages, and
// twenty a second of them take 4 % of a pull. The kernel counts the highest RSS by
// itself. What PSS leaves out of RSS is mapped files, mostly, and changes little.
type peakMemory struct {
	looked int64          // highest RSS at which the PSS was read
	high   harness.Memory // where the PSS was highest
}

// worth reports whether the PSS should be read again.
func (p *peakMemory) worth(rss int64) bool { return rss > p.looked+p.looked/16 }

func (p *peakMemory) add(now harness.Memory) {
	p.looked = max(p.looked, now.RSS)
	if now.PSS > p.high.PSS {
		p.high = now
	}
}

// peak is the highest PSS of a runtime whose highest RSS was known later: all that
// was missed counts.
func (p *peakMemory) peak(highRSS int64) int64 { return p.high.PSS + max(0, highRSS-p.high.RSS) }

// end ends the measurement, and waits until all is written.
func (m *meter) end() (sample, error) {
	s := sample{Wall: time.Since(m.began)}
	close(m.stop)
	m.done.Wait()
	if m.failed != nil {
		return s, m.failed
	}
	cpu, err := m.daemon.CPU()
	if err != nil {
		return s, err
	}
	high, err := m.daemon.HighRSS()
	if err != nil {
		return s, err
	}
	own, err := ownReads()
	if err != nil {
		return s, err
	}
	if own -= m.own; own > mostOwnReads {
		return s, fmt.Errorf("the registry has read %d MiB from the disk", own>>20)
	}
	unix.Sync()
	s.Synced, s.CPU, s.Peak, s.PSS = time.Since(m.began), cpu-m.cpu, m.peak, m.memory.peak(high)
	read, written, err := m.disk.Traffic()
	if err != nil {
		return s, err
	}
	used, err := m.disk.Used()
	s.Read, s.Written, s.Kept = read-m.read, written-m.written, used-m.used
	s.Peak = max(s.Peak, s.Kept)
	return s, err
}

// mostOwnReads is what this program may read from the disk during a pull: its own
// text, from which it was parted with the page cache.
const mostOwnReads = 32 << 20

// ownReads is how many bytes this program, which is the registry too, has read from
// disks. Reading a tmpfs does not count.
func ownReads() (int64, error) {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, errors.New("/proc/self/io has no read_bytes")
}

// rest empties the page cache, after it has waited until the disk was quiet for a
// while. Where others write to it, it says so and goes on.
func rest(ctx context.Context, disk harness.Disk) error {
	const quiet, most = 3, 120 // seconds
	still := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for waited := 0; still < quiet; waited++ {
		if waited == most {
			fmt.Fprintln(os.Stderr, "the disk does not come to rest: the figures that follow are not good")
			break
		}
		unix.Sync()
		_, before, err := disk.Traffic()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		_, after, err := disk.Traffic()
		if err != nil {
			return err
		}
		if still++; after-before > 1<<20 {
			still = 0
		}
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
