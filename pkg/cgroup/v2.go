package cgroup

import (
	"bytes"
	"slices"
)

const microsecond = 1000 // in nanoseconds

func (r *Reader) readV2(g *Group, d Detail, s *Stats) {
	r.cpuV2(g, d, &s.CPU)
	r.memoryV2(g, d, s)
	s.Pids.Processes = r.count(g)
	s.CPU.Pressure = r.pressure(g, cpuPressure)
	s.Memory.Pressure = r.pressure(g, memoryPressure)
	s.IO.Pressure = r.pressure(g, ioPressure)
	if d == Brief {
		return
	}
	dir := g.dir("")
	s.Pids.Current, s.Pids.Known = r.number(dir, "pids.current")
	s.Pids.Max = r.limit(dir, "pids.max")
	s.IO.Devices = devicesV2(r.file(dir, "io.stat"))
	for _, size := range r.pageSizes(dir, "hugetlb.", ".current") {
		h := HugeTLB{Size: size}
		h.Usage, _ = r.number(dir, "hugetlb."+size+".current")
		for key, value := range pairs(r.file(dir, "hugetlb."+size+".events")) {
			if string(key) == "max" {
				h.Failures = value
			}
		}
		s.HugeTLB = append(s.HugeTLB, h)
	}
}

func (r *Reader) cpuV2(g *Group, d Detail, c *CPU) {
	for key, value := range pairs(r.kept(g, cpuUsage)) {
		switch string(key) {
		case "usage_usec":
			c.Known, c.Usage = true, value*microsecond
		case "user_usec":
			c.User = value * microsecond
		case "system_usec":
			c.System = value * microsecond
		case "nr_periods":
			c.Periods = value
		case "nr_throttled":
			c.ThrottledPeriods = value
		case "throttled_usec":
			c.ThrottledTime = value * microsecond
		case "nr_bursts":
			c.Bursts = value
		case "burst_usec":
			c.BurstTime = value * microsecond
		}
	}
	if d == Brief {
		return
	}
	quota, period := cut(bytes.TrimSpace(r.file(g.dir(""), "cpu.max")), ' ')
	c.Quota, _ = number(quota) // "max": none
	c.Period, _ = number(period)
	if weight, ok := r.number(g.dir(""), "cpu.weight"); ok {
		c.Shares = sharesOf(weight)
	}
}

// sharesOf turns v2's weight of 1 to 10000 into v1's shares of 2 to 262144, as
// cAdvisor does.
func sharesOf(weight uint64) uint64 { return 2 + (max(weight, 1)-1)*262142/9999 }

func (r *Reader) memoryV2(g *Group, d Detail, s *Stats) {
	m := &s.Memory
	m.Usage, m.Known = r.keptNumber(g, memoryUsage)
	if !m.Known {
		return
	}
	m.Limit = r.keptLimit(g, memoryLimit)
	m.Reclaim.Known = true
	for key, value := range pairs(r.kept(g, memoryStat)) {
		switch string(key) {
		case "anon":
			m.Anon = value
		case "file":
			m.File = value
		case "file_mapped":
			m.Mapped = value
		case "active_file":
			m.ActiveFile = value
		case "inactive_file":
			m.InactiveFile = value
		case "pgfault":
			m.Faults = value
		case "pgmajfault":
			m.MajorFaults = value
		case "kernel":
			m.Kernel = value
		case "file_dirty":
			m.Dirty = value
		case "file_writeback":
			m.Writeback = value
		case "workingset_refault_anon":
			m.RefaultAnon = value
		case "workingset_refault_file":
			m.RefaultFile = value
		case "pgscan":
			m.Reclaim.Scanned = value
		case "pgsteal":
			m.Reclaim.Stolen = value
		}
	}
	s.Swap.Usage, s.Swap.Known = r.keptNumber(g, swapUsage)
	s.Swap.Limit = r.keptLimit(g, swapLimit)
	if d == Brief {
		return
	}
	dir := g.dir("")
	m.Peak, _ = r.number(dir, "memory.peak") // since Linux 5.19
	m.Reservation, _ = r.number(dir, "memory.min")
	for key, value := range pairs(r.file(dir, "memory.events")) {
		switch string(key) {
		case "high":
			m.Reclaim.HighEvents = value
		case "max":
			m.Failures = value
		case "oom_kill":
			m.OOMKills = value
		}
	}
}

// devicesV2 reads io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func devicesV2(data []byte) []Device {
	var all []Device
	for line := range lines(data) {
		name, rest := cut(line, ' ')
		dev, ok := device(name)
		if !ok {
			continue
		}
		for len(rest) > 0 {
			var field []byte
			field, rest = cut(rest, ' ')
			key, text := cut(field, '=')
			value, _ := number(text)
			switch string(key) {
			case "rbytes":
				dev.ReadBytes = value
			case "wbytes":
				dev.WriteBytes = value
			case "rios":
				dev.Reads = value
			case "wios":
				dev.Writes = value
			case "dbytes":
				dev.DiscardBytes = value
			case "dios":
				dev.Discards = value
			case "cost.usage":
				dev.Cost.Known, dev.Cost.Usage = true, value*microsecond
			case "cost.wait":
				dev.Cost.Wait = value * microsecond
			case "cost.indebt":
				dev.Cost.Indebt = value * microsecond
			case "cost.indelay":
				dev.Cost.Indelay = value * microsecond
			}
		}
		all = append(all, dev)
	}
	return slices.Clip(all)
}
