package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree writes files below a directory, by path, and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const pressure = "some avg10=1.50 avg60=2.25 avg300=3.00 total=12\nfull avg10=0.50 avg60=0.25 avg300=0.00 total=3\n"

var wantPressure = &Pressure{
	Some: Stall{Total: 12000, Avg10: 1.5, Avg60: 2.25, Avg300: 3},
	Full: Stall{Total: 3000, Avg10: 0.5, Avg60: 0.25},
}

var filesV2 = map[string]string{
	"c/cgroup.procs":             "11\n12\n",
	"c/below/cgroup.procs":       "13\n",
	"c/cpu.stat":                 "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\ncore_sched.force_idle_usec 0\nnr_periods 7\nnr_throttled 2\nthrottled_usec 90\nnr_bursts 3\nburst_usec 40\n",
	"c/cpu.max":                  "50000 100000\n",
	"c/cpu.weight":               "39\n",
	"c/cpu.pressure":             pressure,
	"c/memory.pressure":          pressure,
	"c/io.pressure":              pressure,
	"c/memory.current":           "1000\n",
	"c/memory.low":               "88\n",
	"c/memory.min":               "77\n",
	"c/memory.max":               "4096\n",
	"c/memory.peak":              "1200\n",
	"c/memory.stat":              "anon 300\nfile 500\nkernel 70\nkernel_stack 1\nfile_mapped 60\nfile_dirty 21\nfile_writeback 22\nworkingset_refault_anon 23\nworkingset_refault_file 24\npgscan 25\npgsteal 26\ninactive_anon 0\nactive_anon 300\ninactive_file 200\nactive_file 250\npgfault 9\npgmajfault 4\n",
	"c/memory.events":            "low 0\nhigh 6\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n",
	"c/memory.swap.current":      "33\n",
	"c/memory.swap.max":          "100\n",
	"c/pids.current":             "5\n",
	"c/pids.max":                 "max\n",
	"c/io.stat":                  "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \n253:16 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=0 dios=0 cost.vrate=100.00 cost.usage=3 cost.wait=4 cost.indebt=5 cost.indelay=6\n",
	"c/hugetlb.2MB.current":      "4194304\n",
	"c/hugetlb.2MB.events":       "max 3\n",
	"c/hugetlb.2MB.max":          "max\n",
	"c/hugetlb.2MB.rsvd.current": "0\n",
}

func wantV2() Stats {
	return Stats{
		CPU: CPU{Known: true, Usage: 1_500_000, User: 1_000_000, System: 500_000, Periods: 7, ThrottledPeriods: 2, ThrottledTime: 90_000, Bursts: 3, BurstTime: 40_000, Period: 100_000, Quota: 50_000, Shares: 998, Pressure: wantPressure},
		Memory: Memory{
			Known: true, Usage: 1000, Limit: 4096, Anon: 300, File: 500, Mapped: 60, ActiveFile: 250, InactiveFile: 200, Faults: 9, MajorFaults: 4,
			Pressure: wantPressure, Peak: 1200, Kernel: 70, Failures: 5, OOMKills: 1, Reservation: 77,
			Dirty: 21, Writeback: 22, RefaultAnon: 23, RefaultFile: 24, Reclaim: Reclaim{Known: true, Scanned: 25, Stolen: 26, HighEvents: 6},
		},
		Swap: Swap{Known: true, Usage: 33, Limit: 100},
		Pids: Pids{Known: true, Current: 5, Processes: 3, Max: Unlimited},
		IO: IO{Pressure: wantPressure, Devices: []Device{
			{Major: 8, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4, DiscardBytes: 5, Discards: 6},
			{Major: 7, Minor: 1},
			{Major: 253, Minor: 16, ReadBytes: 10, WriteBytes: 20, Reads: 30, Writes: 40, Cost: Cost{Known: true, Usage: 3000, Wait: 4000, Indebt: 5000, Indelay: 6000}},
		}},
		HugeTLB: []HugeTLB{{Size: "2MB", Usage: 4 << 20, Failures: 3}},
	}
}

func v2(root string) *Hierarchies { return &Hierarchies{V2: true, Mounts: map[string]string{"": root}} }

func TestAllOfV2IsRead(t *testing.T) {
	g := v2(tree(t, filesV2)).Group("/c")
	defer g.Close()
	for range 2 { // the second time from open files
		got, err := NewReader().Read(g, Full)
		if diff := cmp.Diff(wantV2(), got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
	if ws := (&Memory{Usage: 1000, InactiveFile: 200}).WorkingSet(); ws != 800 {
		t.Errorf("working set %d", ws)
	}
	if ws := (&Memory{Usage: 100, InactiveFile: 200}).WorkingSet(); ws != 0 {
		t.Errorf("working set %d of less than the page cache", ws)
	}
}

func TestBriefReadsWhatKubeletAsks(t *testing.T) {
	g := v2(tree(t, filesV2)).Group("c")
	defer g.Close()
	got, err := NewReader().Read(g, Brief)
	want := wantV2()
	want.Memory.Peak, want.Memory.Failures, want.Memory.OOMKills, want.Memory.Reservation, want.Pids.Max = 0, 0, 0, 0, 0
	want.CPU.Period, want.CPU.Quota, want.CPU.Shares, want.Memory.Reclaim.HighEvents = 0, 0, 0, 0
	want.Pids.Known, want.Pids.Current = false, 0
	want.IO.Devices, want.HugeTLB = nil, nil
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestWithoutLimitsAndControllers(t *testing.T) {
	root := tree(t, map[string]string{
		"c/cpu.stat": "usage_usec 5\nuser_usec 5\nsystem_usec 0\n", "c/cgroup.procs": "", // v2 without controllers
		"m/memory.current": "7\n", "m/memory.max": "max\n", "m/memory.stat": "anon 1\n", "m/memory.swap.current": "0\n", "m/memory.swap.max": "max\n",
		"none/cgroup.procs": "",
	})
	r := NewReader()
	got, err := r.Read(v2(root).Group("c"), Full)
	if diff := cmp.Diff(Stats{CPU: CPU{Known: true, Usage: 5000, User: 5000}, Pids: Pids{Max: Unlimited}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	got, err = r.Read(v2(root).Group("m"), Brief)
	want := Stats{Memory: Memory{Known: true, Usage: 7, Limit: Unlimited, Anon: 1, Reclaim: Reclaim{Known: true}}, Swap: Swap{Known: true, Limit: Unlimited}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err = r.Read(v2(root).Group("none"), Brief); err != nil {
		t.Errorf("a cgroup without controllers: %v", err)
	}
	if _, err = r.Read((&Hierarchies{}).Group("c"), Full); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no hierarchies: %v", err)
	}
	if _, err = r.Read(v2(root).Group("nowhere"), Brief); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no cgroup: %v", err)
	}
}

var filesV1 = map[string]string{
	"cpuacct/c/cpuacct.usage":                           "1500000\n",
	"cpuacct/c/cpuacct.usage_user":                      "1000000\n",
	"cpuacct/c/cpuacct.usage_sys":                       "500000\n",
	"cpuacct/c/cpuacct.stat":                            "user 1\nsystem 0\n",
	"cpu/c/cpu.stat":                                    "nr_periods 7\nnr_throttled 2\nthrottled_time 90000\nnr_bursts 3\nburst_time 40000\n",
	"cpu/c/cpu.cfs_period_us":                           "100000\n",
	"cpu/c/cpu.cfs_quota_us":                            "50000\n",
	"cpu/c/cpu.shares":                                  "998\n",
	"memory/c/memory.usage_in_bytes":                    "1000\n",
	"memory/c/memory.limit_in_bytes":                    "4096\n",
	"memory/c/memory.soft_limit_in_bytes":               "77\n",
	"memory/c/memory.max_usage_in_bytes":                "1200\n",
	"memory/c/memory.failcnt":                           "5\n",
	"memory/c/memory.kmem.usage_in_bytes":               "70\n",
	"memory/c/memory.oom_control":                       "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
	"memory/c/memory.memsw.usage_in_bytes":              "1033\n",
	"memory/c/memory.stat":                              "cache 1\nrss 2\nhierarchical_memory_limit 4096\nhierarchical_memsw_limit 4196\ntotal_cache 500\ntotal_rss 300\ntotal_rss_huge 0\ntotal_mapped_file 60\ntotal_dirty 21\ntotal_writeback 22\ntotal_workingset_refault_anon 23\ntotal_workingset_refault_file 24\ntotal_swap 33\ntotal_pgfault 9\ntotal_pgmajfault 4\ntotal_inactive_file 200\ntotal_active_file 250\n",
	"pids/c/pids.current":                               "5\n",
	"pids/c/pids.max":                                   "max\n",
	"pids/c/cgroup.procs":                               "11\n12\n",
	"pids/c/below/cgroup.procs":                         "13\n",
	"blkio/c/blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Sync 2\n8:0 Async 1\n8:0 Discard 5\n8:0 Total 8\n253:16 Read 10\n253:16 Write 20\n253:16 Discard 0\nTotal 38\n",
	"blkio/c/blkio.throttle.io_serviced_recursive":      "8:0 Read 3\n8:0 Write 4\n8:0 Discard 6\n253:16 Read 30\n253:16 Write 40\nTotal 83\n",
	"hugetlb/c/hugetlb.2MB.usage_in_bytes":              "4194304\n",
	"hugetlb/c/hugetlb.2MB.max_usage_in_bytes":          "6291456\n",
	"hugetlb/c/hugetlb.2MB.failcnt":                     "3\n",
	"unified/c/cpu.pressure":                            pressure,
	"unified/c/memory.pressure":                         pressure,
	"unified/c/io.pressure":                             pressure,
}

func v1(root string) *Hierarchies {
	h := &Hierarchies{Mounts: map[string]string{"": root + "/unified"}}
	for c := range controllers {
		h.Mounts[c] = root + "/" + c
	}
	return h
}

func TestAllOfV1IsReadAsV2Is(t *testing.T) {
	g := v1(tree(t, filesV1)).Group("/c")
	defer g.Close()
	got, err := NewReader().Read(g, Full)
	want := wantV2()
	want.IO.Devices = []Device{want.IO.Devices[0], want.IO.Devices[2]}
	want.HugeTLB[0].Peak = 6 << 20
	want.Memory.Reclaim, want.IO.Devices[1].Cost = Reclaim{}, Cost{} // v1 does not count them
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestV1HasItsOwnWayToSayThatThereIsNoLimit(t *testing.T) {
	g := v1(tree(t, map[string]string{
		"memory/c/memory.usage_in_bytes": "7\n", "memory/c/memory.limit_in_bytes": "9223372036854771712\n",
		"memory/c/memory.stat": "hierarchical_memsw_limit 9223372036854710272\ntotal_swap 0\n",
	})).Group("c")
	got, err := NewReader().Read(g, Brief)
	want := Stats{Memory: Memory{Known: true, Usage: 7, Limit: Unlimited}, Swap: Swap{Known: true, Limit: Unlimited}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestProcessesAreFoundBelow(t *testing.T) {
	for name, h := range map[string]*Hierarchies{"v1": v1(tree(t, filesV1)), "v2": v2(tree(t, filesV2))} {
		if got := NewReader().Processes(h.Group("c")); !cmp.Equal(got, []int{11, 12, 13}) {
			t.Errorf("%s: %v", name, got)
		}
		if got := NewReader().Processes(h.Group("gone")); len(got) != 0 {
			t.Errorf("%s of a cgroup that is gone: %v", name, got)
		}
	}
}

func TestAShallowGroupCountsItsOwnProcesses(t *testing.T) {
	g := v2(tree(t, filesV2)).Group("c")
	defer g.Close()
	g.Shallow = true
	if got, err := NewReader().Read(g, Brief); err != nil || got.Pids.Processes != 2 {
		t.Errorf("%+v, %v", got.Pids, err)
	}
}

func TestOnlySoManyCgroupsAreSearched(t *testing.T) {
	files := map[string]string{"c/cgroup.procs": ""}
	for i := range maxGroups + 100 {
		files[fmt.Sprintf("c/%d/cgroup.procs", i)] = "7\n"
	}
	if n := len(NewReader().Processes(v2(tree(t, files)).Group("c"))); n == 0 || n >= maxGroups {
		t.Errorf("found %d", n)
	}
}

func TestProcessesThatComeLaterAreCounted(t *testing.T) {
	root := tree(t, map[string]string{"c/pids.current": "0\n", "c/cgroup.procs": ""})
	g := v2(root).Group("c")
	defer g.Close()
	r := NewReader()
	for want, procs := range []string{"", "5\n", "5\n6\n"} {
		if err := os.WriteFile(filepath.Join(root, "c/cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Read(g, Brief); err != nil || got.Pids.Processes != uint64(want) {
			t.Errorf("%q: %+v, %v", procs, got.Pids, err)
		}
	}
}

func TestACgroupThatComesAgainIsReadAgain(t *testing.T) {
	root := tree(t, filesV2)
	g := v2(root).Group("c")
	defer g.Close()
	r := NewReader()
	if err := os.Rename(filepath.Join(root, "c"), filepath.Join(root, "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(g, Brief); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("away: %v", err)
	}
	if err := os.Rename(filepath.Join(root, "away"), filepath.Join(root, "c")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Read(g, Brief); err != nil || !got.CPU.Known {
		t.Errorf("back: %+v, %v", got, err)
	}
}

func TestATransientGroupKeepsNothingOpen(t *testing.T) {
	g := v2(tree(t, filesV2)).Group("c")
	g.Transient = true
	if _, err := NewReader().Read(g, Brief); err != nil {
		t.Fatal(err)
	}
	for f, fd := range g.fds {
		if fd >= 0 {
			t.Errorf("file %d is open", f)
		}
	}
}

func TestLongFilesAreReadWhole(t *testing.T) {
	text := strings.Repeat("some_counter_of_the_kernel 1234567890\n", 3000) + "anon 5\n"
	g := v2(tree(t, map[string]string{"c/memory.current": "9\n", "c/memory.stat": text})).Group("c")
	defer g.Close()
	if got, err := NewReader().Read(g, Brief); err != nil || got.Memory.Anon != 5 {
		t.Errorf("%+v, %v", got.Memory, err)
	}
}

func TestHierarchiesAreFound(t *testing.T) {
	mounts := func(all ...[3]string) string {
		var b strings.Builder
		for _, m := range all {
			b.WriteString("30 20 0:1 / /sys/fs/cgroup" + m[0] + " rw - " + m[1] + " cgroup rw" + m[2] + "\n")
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		info string
		want *Hierarchies
	}{
		"v2": {mounts([3]string{"", "cgroup2", ""}), &Hierarchies{V2: true, Mounts: map[string]string{"": "/sys/fs/cgroup"}}},
		"v1, two in one": {
			mounts([3]string{"/cpu,cpuacct", "cgroup", ",cpu,cpuacct"}, [3]string{"/systemd", "cgroup", ",name=systemd"}, [3]string{"/again", "cgroup", ",cpu,cpuacct"}),
			&Hierarchies{Mounts: map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct"}},
		},
		"hybrid": {
			mounts([3]string{"/unified", "cgroup2", ",nsdelegate"}, [3]string{"/pids", "cgroup", ",pids"}),
			&Hierarchies{Mounts: map[string]string{"": "/sys/fs/cgroup/unified", "pids": "/sys/fs/cgroup/pids"}},
		},
		"none": {"30 20 0:1 / / rw - tmpfs tmpfs rw\n", nil},
	} {
		got, err := parse(strings.NewReader(c.info))
		if diff := cmp.Diff(c.want, got); diff != "" || (err != nil) != (c.want == nil) {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// FuzzFiles reads files as nobody has written them.
func FuzzFiles(f *testing.F) {
	for _, files := range []map[string]string{filesV1, filesV2} {
		for _, text := range files {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		files := map[string]string{}
		for name := range filesV2 {
			files[name] = text
		}
		g := v2(tree(t, files)).Group("c")
		defer g.Close()
		s, err := NewReader().Read(g, Full)
		if err != nil {
			t.Error(err)
		}
		if s.Memory.WorkingSet() > s.Memory.Usage {
			t.Errorf("working set of %+v", s.Memory)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	h, err := Find()
	if err != nil {
		b.Fatal(err)
	}
	g := h.Group("/")
	defer g.Close()
	for name, d := range map[string]Detail{"brief": Brief, "full": Full} {
		b.Run(name, func(b *testing.B) {
			r := NewReader()
			for b.Loop() {
				if _, err := r.Read(g, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
