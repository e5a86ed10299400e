package checkpoint

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
)

// Possible refuses what CRIU cannot write down, or not make again in another pod. The
// error is errs.Unsupported.
func Possible(sp *specs.Spec) error {
	processes := false
	for _, ns := range sp.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return fmt.Errorf("there are no checkpoints of containers in user namespaces: %w", errs.Unsupported)
		}
		processes = processes || ns.Type == specs.PIDNamespace
	}
	if !processes { // their numbers would be taken when they are to be had again
		return fmt.Errorf("there are no checkpoints of containers among the node's processes: %w", errs.Unsupported)
	}
	return nil
}

// Describe tells what a container made from the specification is.
func Describe(name, image string, stdin bool, sp *specs.Spec) (Container, error) {
	p := sp.Process
	d := Container{
		Name: name, Image: image, Args: p.Args, Cwd: p.Cwd, Env: [][]byte{},
		User: append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...), Terminal: p.Terminal, Stdin: stdin,
	}
	for _, kv := range p.Env {
		if !strings.HasPrefix(kv, "HOSTNAME=") { // follows from the pod's name, which may be another
			d.Env = append(d.Env, []byte(kv))
		}
	}
	for _, m := range sp.Mounts {
		d.Mounts = append(d.Mounts, m.Destination+" "+m.Type)
	}
	for _, ns := range sp.Linux.Namespaces {
		d.Namespaces = append(d.Namespaces, fmt.Sprintf("%s own=%t", ns.Type, ns.Path == ""))
	}
	slices.Sort(d.Namespaces)
	var err error
	d.Limits, err = limitsOf(sp)
	return d, err
}

// limitsOf are those parts of the specification that processes carry with them, and
// that a restore does not set anew.
func limitsOf(sp *specs.Spec) ([]string, error) {
	var all []string
	for _, part := range []struct {
		name string
		is   any
	}{
		{"capabilities", sp.Process.Capabilities},
		{"rlimits", sp.Process.Rlimits},
		{"noNewPrivileges", sp.Process.NoNewPrivileges},
		{"seccomp", sp.Linux.Seccomp},
		{"selinux", sp.Process.SelinuxLabel},
		{"readonlyRoot", sp.Root.Readonly},
		{"masked", sp.Linux.MaskedPaths},
		{"readonly", sp.Linux.ReadonlyPaths},
	} {
		data, err := json.Marshal(part.is)
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%s %x", part.name, sha256.Sum256(data)))
	}
	return all, nil
}
