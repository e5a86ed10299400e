package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Find returns the hierarchies of this host.
func Find() (*Hierarchies, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(bufio.NewReader(f))
}

// parse reads mountinfo. Of several mounts of one hierarchy the first one counts,
// as it does for libcontainer.
func parse(r io.Reader) (*Hierarchies, error) {
	mounts, err := mountinfo.GetMountsFromReader(r, mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	h := &Hierarchies{V2: true, Mounts: map[string]string{}}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			h.add("", m.Mountpoint)
			continue
		}
		for option := range strings.SplitSeq(m.VFSOptions, ",") {
			if controllers[option] {
				h.V2 = false
				h.add(option, m.Mountpoint)
			}
		}
	}
	if len(h.Mounts) == 0 {
		return nil, fmt.Errorf("look for cgroups: none are mounted")
	}
	return h, nil
}

func (h *Hierarchies) add(controller, mountpoint string) {
	if _, ok := h.Mounts[controller]; !ok {
		h.Mounts[controller] = mountpoint
	}
}

// controllers are those of v1 that are read.
var controllers = map[string]bool{"cpu": true, "cpuacct": true, "memory": true, "blkio": true, "pids": true, "hugetlb": true}
