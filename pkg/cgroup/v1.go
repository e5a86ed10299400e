package cgroup

import "bytes"

func (r *Reader) readV1(g *Group, d Detail, s *Stats) {
	r.cpuV1(g, d, &s.CPU)
	r.memoryV1(g, d, s)
	s.Pids.Processes = r.count(g)
	s.CPU.Pressure = r.pressure(g, cpuPressure)
	s.Memory.Pressure = r.pressure(g, memoryPressure)
	s.IO.Pressure = r.pressure(g, ioPressure)
	if d == Brief {
		return
	}
	s.Pids.Current, s.Pids.Known = r.number(g.dir("pids"), "pids.current")
	s.Pids.Max = r.limit(g.dir("pids"), "pids.max")
	s.IO.Devices = r.devicesV1(g.dir("blkio"))
	huge := g.dir("hugetlb")
	for _, size := range r.pageSizes(huge, "hugetlb.", ".usage_in_bytes") {
		h := HugeTLB{Size: size}
		h.Usage, _ = r.number(huge, "hugetlb."+size+".usage_in_bytes")
		h.Peak, _ = r.number(huge, "hugetlb."+size+".max_usage_in_bytes")
		h.Failures, _ = r.number(huge, "hugetlb."+size+".failcnt")
		s.HugeTLB = append(s.HugeTLB, h)
	}
}

func (r *Reader) cpuV1(g *Group, d Detail, c *CPU) {
	c.Usage, c.Known = r.keptNumber(g, cpuUsage)
	if d == Brief {
		return
	}
	account := g.dir("cpuacct")
	c.User, _ = r.number(account, "cpuacct.usage_user")
	c.System, _ = r.number(account, "cpuacct.usage_sys")
	for key, value := range pairs(r.file(g.dir("cpu"), "cpu.stat")) {
		switch string(key) {
		case "nr_periods":
			c.Periods = value
		case "nr_throttled":
			c.ThrottledPeriods = value
		case "throttled_time":
			c.ThrottledTime = value
		case "nr_bursts":
			c.Bursts = value
		case "burst_time":
			c.BurstTime = value
		}
	}
	c.Period, _ = r.number(g.dir("cpu"), "cpu.cfs_period_us")
	c.Quota, _ = r.number(g.dir("cpu"), "cpu.cfs_quota_us") // -1: none
	c.Shares, _ = r.number(g.dir("cpu"), "cpu.shares")
}

// noLimitV1 is the least of what v1 shows where there is no limit: it rounds the
// largest number down to pages, which may have 64 KiB.
const noLimitV1 = 1<<63 - 1<<16

func limitV1(n uint64, ok bool) uint64 {
	if !ok || n >= noLimitV1 {
		return Unlimited
	}
	return n
}

func (r *Reader) memoryV1(g *Group, d Detail, s *Stats) {
	m := &s.Memory
	m.Usage, m.Known = r.keptNumber(g, memoryUsage)
	if !m.Known {
		return
	}
	m.Limit = limitV1(r.keptNumber(g, memoryLimit))
	both := Unlimited // with swap
	for key, value := range pairs(r.kept(g, memoryStat)) {
		switch string(key) {
		case "total_rss":
			m.Anon = value
		case "total_cache":
			m.File = value
		case "total_mapped_file":
			m.Mapped = value
		case "total_active_file":
			m.ActiveFile = value
		case "total_inactive_file":
			m.InactiveFile = value
		case "total_pgfault":
			m.Faults = value
		case "total_pgmajfault":
			m.MajorFaults = value
		case "total_dirty":
			m.Dirty = value
		case "total_writeback":
			m.Writeback = value
		case "total_workingset_refault_anon":
			m.RefaultAnon = value
		case "total_workingset_refault_file":
			m.RefaultFile = value
		case "total_swap": // the kernel has it where it counts swap
			s.Swap.Known, s.Swap.Usage = true, value
		case "hierarchical_memsw_limit":
			both = value
		}
	}
	s.Swap.Limit = Unlimited
	if both < noLimitV1 && m.Limit != Unlimited {
		s.Swap.Limit = both - min(both, m.Limit)
	}
	if d == Brief {
		return
	}
	dir := g.dir("memory")
	m.Peak, _ = r.number(dir, "memory.max_usage_in_bytes")
	m.Kernel, _ = r.number(dir, "memory.kmem.usage_in_bytes")
	m.Failures, _ = r.number(dir, "memory.failcnt")
	if soft := limitV1(r.number(dir, "memory.soft_limit_in_bytes")); soft != Unlimited {
		m.Reservation = soft
	}
	for key, value := range pairs(r.file(dir, "memory.oom_control")) {
		if string(key) == "oom_kill" {
			m.OOMKills = value
		}
	}
}

// devicesV1 joins two files with lines such as "8:0 Read 4096". The throttling
// policy counts for every scheduler.
func (r *Reader) devicesV1(dir string) []Device {
	var all []Device
	read := func(name string, fields func(d *Device) (read, write, discard *uint64)) {
		for line := range lines(r.file(dir, name)) {
			id, rest := cut(line, ' ')
			dev, ok := device(id)
			if !ok {
				continue // the line with the total
			}
			at := indexDevice(all, dev)
			if at < 0 {
				at = len(all)
				all = append(all, dev)
			}
			kind, text := cut(rest, ' ')
			value, _ := number(text)
			in, out, discard := fields(&all[at])
			switch {
			case bytes.Equal(kind, []byte("Read")):
				*in = value
			case bytes.Equal(kind, []byte("Write")):
				*out = value
			case bytes.Equal(kind, []byte("Discard")):
				*discard = value
			}
		}
	}
	read("blkio.throttle.io_service_bytes_recursive", func(d *Device) (*uint64, *uint64, *uint64) {
		return &d.ReadBytes, &d.WriteBytes, &d.DiscardBytes
	})
	read("blkio.throttle.io_serviced_recursive", func(d *Device) (*uint64, *uint64, *uint64) {
		return &d.Reads, &d.Writes, &d.Discards
	})
	return all
}

func indexDevice(all []Device, d Device) int {
	for i := range all {
		if all[i].Major == d.Major && all[i].Minor == d.Minor {
			return i
		}
	}
	return -1
}
