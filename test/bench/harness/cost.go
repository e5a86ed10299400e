package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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

// PSS is the memory of the runtime's programs that is theirs alone, and their
// share of what is not, in bytes.
func (d *Daemon) PSS() (int64, error) {
	var sum int64
	for _, c := range d.commands {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", c.Process.Pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += kb << 10
			}
		}
	}
	return sum, nil
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

// Written is how many bytes have been written to the device since it was there.
func (d Disk) Written() (int64, error) {
	data, err := os.ReadFile(filepath.Join(d.device, "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 7 {
		return 0, fmt.Errorf("%s/stat has %d fields", d.device, len(fields))
	}
	sectors, err := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512, err
}

// Used is how many bytes of the file system are taken.
func (d Disk) Used() (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(d.path, &st)
	return int64(st.Blocks-st.Bfree) * st.Bsize, err
}
