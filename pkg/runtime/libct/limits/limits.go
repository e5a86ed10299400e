// Package limits knows what this process may not do, and lowers to it what a spec
// asks beyond: a runtime that is in a container itself must still run pods. Each
// thing that was lowered is logged once. There are no locks and no goroutines.
package limits

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Limits are those of one process. The zero value may do nothing.
type Limits struct {
	// OOMScoreAdjMin is the least oom_score_adj.
	OOMScoreAdjMin int
	// MayRaise is to set rlimits above our own: CAP_SYS_RESOURCE in the initial
	// user namespace.
	MayRaise bool
	// OpenFiles is fs.nr_open, above which nobody may set RLIMIT_NOFILE; 0 where
	// it is not known.
	OpenFiles uint64
	// Capabilities are those held, Missing the kernel's others.
	Capabilities map[string]bool
	Missing      []string
}

// Probe asks the kernel.
func Probe() Limits {
	l := Limits{OOMScoreAdjMin: -1000, Capabilities: map[string]bool{}}
	held, _ := capability.NewPid2(0)
	if held != nil {
		_ = held.Load() // without it nothing is held, which the words then say
	}
	supported, _ := capability.ListSupported()
	for _, c := range supported {
		name := "CAP_" + strings.ToUpper(c.String())
		if held != nil && held.Get(capability.PERMITTED, c) && held.Get(capability.BOUNDING, c) {
			l.Capabilities[name] = true
		} else {
			l.Missing = append(l.Missing, name)
		}
	}
	l.MayRaise = l.Capabilities["CAP_SYS_RESOURCE"] && inInitialUserNamespace()
	l.OpenFiles = uint64(readNumber("/proc/sys/fs/nr_open"))
	if !l.MayRaise {
		l.OOMScoreAdjMin = ownOOMScoreAdj()
	}
	return l
}

func ownOOMScoreAdj() int { return readNumber("/proc/self/oom_score_adj") }

// readNumber returns 0 for what cannot be read.
func readNumber(path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(data)))
	return n
}

// inInitialUserNamespace goes by the map, which has all ids there alone.
func inInitialUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || slices.Equal(strings.Fields(string(data)), []string{"0", "0", "4294967295"})
}

// Words says it to people.
func (l *Limits) Words() []string {
	var w []string
	if !l.MayRaise {
		w = append(w, fmt.Sprintf("oom_score_adj cannot go below %d", l.OOMScoreAdjMin), "rlimits cannot be raised above the runtime's own")
	}
	if len(l.Missing) > 0 {
		w = append(w, "capabilities not held: "+strings.Join(l.Missing, ", "))
	}
	return w
}

var warned sync.Map // by what was lowered, so that the log says it once

func lowered(what string) {
	if _, said := warned.LoadOrStore(what, true); !said {
		slog.Warn("Asked for more than this process may give, lowered", "what", what)
	}
}

// OOMScoreAdj returns n, or the least there may be.
func (l *Limits) OOMScoreAdj(n int) int {
	if n >= l.OOMScoreAdjMin {
		return n
	}
	lowered("oom_score_adj")
	return l.OOMScoreAdjMin
}

// Process returns p lowered to what we may do; p itself is not changed.
func (l *Limits) Process(p *specs.Process) (*specs.Process, error) {
	if p == nil {
		return nil, nil
	}
	c := *p
	if c.OOMScoreAdj != nil {
		adj := l.OOMScoreAdj(*c.OOMScoreAdj)
		c.OOMScoreAdj = &adj
	}
	if c.Capabilities != nil {
		c.Capabilities = &specs.LinuxCapabilities{
			Bounding:    l.held(c.Capabilities.Bounding),
			Effective:   l.held(c.Capabilities.Effective),
			Permitted:   l.held(c.Capabilities.Permitted),
			Inheritable: l.held(c.Capabilities.Inheritable),
			Ambient:     l.held(c.Capabilities.Ambient),
		}
	}
	c.Rlimits = slices.Clone(c.Rlimits)
	for i := range c.Rlimits {
		if err := l.rlimit(&c.Rlimits[i]); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func (l *Limits) held(caps []string) []string {
	var kept []string
	for _, c := range caps {
		if l.Capabilities[c] {
			kept = append(kept, c)
		} else {
			lowered(c)
		}
	}
	return kept
}

func (l *Limits) rlimit(r *specs.POSIXRlimit) error {
	resource, err := Rlimit(r.Type)
	if err != nil {
		return err
	}
	top := ^uint64(0)
	if resource == unix.RLIMIT_NOFILE && l.OpenFiles > 0 {
		top = l.OpenFiles
	}
	if !l.MayRaise {
		var own unix.Rlimit
		if err := unix.Getrlimit(resource, &own); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		top = min(top, own.Max)
	}
	if r.Hard > top {
		lowered(r.Type)
		r.Hard, r.Soft = top, min(r.Soft, top)
	}
	return nil
}
