package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/internal/relabel"
	"github.com/berth-run/berth/pkg/spec"
)

// superPrivileged is the type of processes that SELinux lets do everything: they need
// no label of their volumes, and would take it from others.
const superPrivileged = "spc_t"

// relabelMounts gives the container's SELinux label to the volumes that ask for it,
// to the image's, and to the files that Berth makes for the pod. Without SELinux, and
// for a container that it does not confine, there is no label.
func relabelMounts(ctx context.Context, in *spec.Input, sp *specs.Spec) error {
	label := sp.Linux.MountLabel
	if label == "" {
		return nil
	}
	for _, m := range in.Container.GetMounts() {
		if !m.GetSelinuxRelabel() || spec.IsImageMount(m) || strings.Contains(sp.Process.SelinuxLabel, ":"+superPrivileged+":") {
			continue
		}
		if err := relabel.Tree(ctx, in.Sources[m.GetHostPath()], label); err != nil {
			return fmt.Errorf("give %s the SELinux label %s: %w", m.GetHostPath(), label, err)
		}
	}
	own := []string{in.ResolvConf, in.Hosts, in.Hostname}
	if in.Shm != hostShm {
		own = append(own, in.Shm)
	}
	for _, v := range in.Volumes {
		own = append(own, v.HostPath)
	}
	for _, path := range own {
		if path == "" {
			continue
		}
		if err := relabel.Tree(ctx, path, label); err != nil {
			return fmt.Errorf("give %s the SELinux label %s: %w", path, label, err)
		}
	}
	return nil
}

// hostShm is the shared memory of pods in the host's IPC namespace.
const hostShm = "/dev/shm"
