package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticks is USER_HZ, in which /proc counts processor time.
const ticks = 100

// CPU is the processor time that the runtime's programs have used, with what they
// have started and waited for.
func (d *Daemon) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, c := range d.commands {
		fields, err := stat(c.Process.Pid)
		if err != nil {
			return 0, err
		}
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * time.Second / ticks
		}
	}
	return sum, nil
}

// stat returns the fields of /proc/PID/stat that follow the program's name.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// Memory is what a runtime's programs have in memory, in bytes.
type Memory struct {
	PSS int64 // theirs alone, and their share of what is not
	RSS int64 // all that they have mapped, theirs alone or not
}

// RSS is cheap to read, and never below the PSS.
func (d *Daemon) RSS() (int64, error) {
	var sum int64
	for _, c := range d.commands {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.Process.Pid))
		if err != nil {
			return 0, err
		}
		var size, resident int64
		if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
			return 0, fmt.Errorf("/proc/%d/statm: %w", c.Process.Pid, err)
		}
		sum += resident * int64(os.Getpagesize())
	}
	return sum, nil
}

// Memory walks the page tables of the programs, which keeps them from mapping
// memory meanwhile.
func (d *Daemon) Memory() (Memory, error) {
	var m Memory
	for _, c := range d.commands {
		fields, err := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", c.Process.Pid), "Pss", "Rss")
		if err != nil {
			return m, err
		}
		m.PSS, m.RSS = m.PSS+fields[0], m.RSS+fields[1]
	}
	return m, nil
}

// HighRSS is the sum of the programs' highest RSS since they started, or since
// ForgetHighRSS.
func (d *Daemon) HighRSS() (int64, error) {
	var sum int64
	for _, c := range d.commands {
		fields, err := kilobytes(fmt.Sprintf("/proc/%d/status", c.Process.Pid), "VmHWM")
		if err != nil {
			return 0, err
		}
		sum += fields[0]
	}
	return sum, nil
}

// ForgetHighRSS makes HighRSS begin anew.
func (d *Daemon) ForgetHighRSS() error {
	for _, c := range d.commands {
		// proc(5): 5 resets VmHWM, and nothing else.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.Process.Pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	return nil
}

// kilobytes returns the fields of a file of lines like "Pss: 17 kB", in bytes.
func kilobytes(path string, names ...string) ([]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := make([]int64, len(names))
	found := 0
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		n := slices.Index(names, name)
		if n < 0 {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		values[n] = kb << 10
		found++
	}
	if found != len(names) {
		return nil, fmt.Errorf("%s has not all of %v", path, names)
	}
	return values, nil
}

// Disk is a block device and the file system on it.
type Disk struct {
	path, device string
}

// DiskOf returns the disk that a path lies on.
func DiskOf(path string) (Disk, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Disk{}, err
	}
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(link); err != nil {
		return Disk{}, fmt.Errorf("%s lies on no block device: %w", path, err)
	}
	return Disk{path: path, device: link}, nil
}

// Traffic is how many bytes have been read from the device, and written to it,
// since it was there.
func (d Disk) Traffic() (read, written int64, err error) {
	data, err := os.ReadFile(filepath.Join(d.device, "stat"))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 7 {
		return 0, 0, fmt.Errorf("%s/stat has %d fields", d.device, len(fields))
	}
	var sectors [2]int64
	for n, at := range []int{2, 6} {
		if sectors[n], err = strconv.ParseInt(fields[at], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return sectors[0] * 512, sectors[1] * 512, nil
}

// Used is how many bytes of the file system are taken.
func (d Disk) Used() (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(d.path, &st)
	return int64(st.Blocks-st.Bfree) * st.Bsize, err
}
