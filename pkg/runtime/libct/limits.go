package libct

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

// limits is what this process may not do. What a spec asks beyond it is
// lowered to it: a runtime inside a container itself must still run pods.
type limits struct {
	oomScoreAdjMin int
	mayRaise       bool // rlimits above our own, CAP_SYS_RESOURCE
	capabilities   map[string]bool
	missing        []string // capabilities
}

func probeLimits() limits {
	l := limits{oomScoreAdjMin: -1000, capabilities: map[string]bool{}}
	held, _ := capability.NewPid2(0)
	if held != nil {
		_ = held.Load() // without it nothing is held, which the words then say
	}
	supported, _ := capability.ListSupported()
	for _, c := range supported {
		name := "CAP_" + strings.ToUpper(c.String())
		if held != nil && held.Get(capability.PERMITTED, c) && held.Get(capability.BOUNDING, c) {
			l.capabilities[name] = true
		} else {
			l.missing = append(l.missing, name)
		}
	}
	l.mayRaise = l.capabilities["CAP_SYS_RESOURCE"]
	if !l.mayRaise {
		l.oomScoreAdjMin = ownOOMScoreAdj()
	}
	return l
}

func ownOOMScoreAdj() int {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(data)))
	return n
}

func (l *limits) words() []string {
	var w []string
	if !l.mayRaise {
		w = append(w, fmt.Sprintf("oom_score_adj cannot go below %d", l.oomScoreAdjMin), "rlimits cannot be raised above the runtime's own")
	}
	if len(l.missing) > 0 {
		w = append(w, "capabilities not held: "+strings.Join(l.missing, ", "))
	}
	return w
}

var warned sync.Map // by what was lowered, so that the log says it once

func lowered(what string) {
	if _, said := warned.LoadOrStore(what, true); !said {
		slog.Warn("Asked for more than this process may give, lowered", "what", what)
	}
}

func (l *limits) oomScoreAdj(n int) int {
	if n >= l.oomScoreAdjMin {
		return n
	}
	lowered("oom_score_adj")
	return l.oomScoreAdjMin
}

// process returns p lowered to what we may do; p itself is not changed.
func (l *limits) process(p *specs.Process) (*specs.Process, error) {
	if p == nil {
		return nil, nil
	}
	c := *p
	if c.OOMScoreAdj != nil {
		adj := l.oomScoreAdj(*c.OOMScoreAdj)
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

func (l *limits) held(caps []string) []string {
	var kept []string
	for _, c := range caps {
		if l.capabilities[c] {
			kept = append(kept, c)
		} else {
			lowered(c)
		}
	}
	return kept
}

func (l *limits) rlimit(r *specs.POSIXRlimit) error {
	if l.mayRaise {
		return nil
	}
	resource, err := rlimitNumber(r.Type)
	if err != nil {
		return err
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(resource, &own); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if r.Hard > own.Max {
		lowered(r.Type)
		r.Hard, r.Soft = own.Max, min(r.Soft, own.Max)
	}
	return nil
}
