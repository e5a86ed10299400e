package libct

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// Flags of a request; exec.c has the same.
const (
	execNoNewPrivs = 1 << iota
	execTerminal
	execHasUmask
	execHasCaps
)

// execRequest writes down, in the order in which exec.c reads it, all that the
// helper does.
func (c *container) execRequest(group execGroup, p *specs.Process, stdio runtime.ProcessIO) (*request, error) {
	env, err := execEnv(p.Env)
	if err != nil {
		return nil, err
	}
	if strings.Contains(strings.Join(p.Args, "")+p.Cwd, "\x00") {
		return nil, fmt.Errorf("argument contains a NUL byte: %w", errs.Invalid)
	}
	filter, err := c.seccomp.Of(&c.config)
	if err != nil {
		return nil, err
	}
	r := &request{data: make([]byte, 0, 8192)}
	r.strings(c.taskFiles(group))
	if err := c.limitsInto(r, p); err != nil {
		return nil, err
	}
	r.number(uint32(stdio.Width))
	r.number(uint32(stdio.Height))
	flags, umask := c.execFlags(p)
	r.number(flags)
	r.number(c.joins())
	r.number(umask)
	r.number(p.User.UID)
	r.number(p.User.GID)
	r.string(c.keyring())
	r.string(p.SelinuxLabel)
	r.string(p.ApparmorProfile)
	r.string(cwd(p))
	r.strings(p.Args)
	r.strings(env)
	groups := make([]string, 0, len(p.User.AdditionalGids))
	for _, g := range p.User.AdditionalGids {
		groups = append(groups, strconv.FormatUint(uint64(g), 10))
	}
	r.strings(groups)
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	for _, set := range [][]string{caps.Bounding, caps.Effective, caps.Permitted, caps.Inheritable, caps.Ambient} {
		r.wide(capabilityBits(set))
	}
	r.number(filter.Flags)
	r.string(string(filter.Code))
	return r, nil
}

func cwd(p *specs.Process) string {
	if p.Cwd == "" {
		return "/"
	}
	return p.Cwd
}

func (c *container) execFlags(p *specs.Process) (flags, umask uint32) {
	if p.NoNewPrivileges {
		flags |= execNoNewPrivs
	}
	if p.Terminal {
		flags |= execTerminal
	}
	if p.Capabilities != nil {
		flags |= execHasCaps
	}
	mask := c.config.Umask
	if p.User.Umask != nil {
		mask = p.User.Umask
	}
	if mask != nil {
		return flags | execHasUmask, *mask
	}
	return flags, 0
}

func (c *container) limitsInto(r *request, p *specs.Process) error {
	adj := p.OOMScoreAdj
	if adj == nil {
		c.mu.Lock()
		adj = c.config.OomScoreAdj // Update changes it
		c.mu.Unlock()
	}
	text := ""
	if adj != nil {
		text = strconv.Itoa(*adj)
	}
	r.string(text)
	limits := c.config.Rlimits
	if len(p.Rlimits) > 0 {
		var err error
		if limits, err = configRlimits(p.Rlimits); err != nil {
			return err
		}
	}
	r.number(uint32(len(limits)))
	for _, l := range limits {
		r.number(uint32(l.Type))
		r.wide(l.Soft)
		r.wide(l.Hard)
	}
	return nil
}

// joins returns which namespaces the helper joins: those that the container
// has, except that of PIDs, in which the helper is born.
func (c *container) joins() uint32 {
	var flags uint32
	for kind, flag := range map[configs.NamespaceType]uint32{
		configs.NEWNS:     unix.CLONE_NEWNS,
		configs.NEWNET:    unix.CLONE_NEWNET,
		configs.NEWIPC:    unix.CLONE_NEWIPC,
		configs.NEWUTS:    unix.CLONE_NEWUTS,
		configs.NEWUSER:   unix.CLONE_NEWUSER,
		configs.NEWCGROUP: unix.CLONE_NEWCGROUP,
		configs.NEWTIME:   unix.CLONE_NEWTIME,
	} {
		if c.config.Namespaces.Contains(kind) {
			flags |= flag
		}
	}
	return flags
}

// keyring is the name that libcontainer gives the container's session keyring.
func (c *container) keyring() string {
	if c.config.NoNewKeyring {
		return ""
	}
	return "_ses." + c.id
}

// taskFiles returns the v1 cgroups to join, by their tasks files.
func (c *container) taskFiles(group execGroup) []string {
	var files []string
	for controller, dir := range c.paths {
		switch {
		case controller == "":
			continue // born there
		case !group.unified && controller == "freezer":
			dir = group.path
		}
		files = append(files, filepath.Join(dir, "tasks"))
	}
	slices.Sort(files)
	return slices.Compact(files) // cpu and cpuacct may be one
}

// execEnv checks the environment as libcontainer does, keeps the last value of
// each name, and adds a HOME if there is none.
func execEnv(env []string) ([]string, error) {
	last := make(map[string]int, len(env))
	home := false
	for i, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || strings.IndexByte(kv, 0) >= 0 {
			return nil, fmt.Errorf("environment variable %q: %w", kv, errs.Invalid)
		}
		last[name] = i
		home = home || name == "HOME" && value != ""
	}
	out := make([]string, 0, len(last)+1)
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if last[name] == i && (name != "HOME" || home) {
			out = append(out, kv)
		}
	}
	if !home {
		out = append(out, "HOME=/")
	}
	return out, nil
}

func capabilityBits(names []string) uint64 {
	var bits uint64
	for _, name := range names {
		for _, c := range capability.ListKnown() {
			if "CAP_"+strings.ToUpper(c.String()) == name {
				bits |= 1 << c
			}
		}
	}
	return bits
}

// frozen reports whether the container is paused.
func (c *container) frozen() (bool, error) {
	if dir := c.paths["freezer"]; dir != "" {
		state, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return err == nil && strings.TrimSpace(string(state)) != "THAWED", err
	}
	if dir := c.paths[""]; dir != "" {
		state, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
		return err == nil && strings.TrimSpace(string(state)) == "1", err
	}
	return false, nil
}
