package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec/check"
)

// MissingHostPaths returns the sources of bind mounts, each once, in order.
// The caller passes them through host.EnsureSource, which makes those that are
// missing, and hands the result back as Input.Sources.
func MissingHostPaths(c *cri.ContainerConfig) []string {
	var out []string
	for _, m := range c.GetMounts() {
		if p := m.GetHostPath(); p != "" && !IsImageMount(m) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// binds turns the configured mounts into bind mounts.
func (b *builder) binds() ([]specs.Mount, error) {
	out := make([]specs.Mount, 0, len(b.Container.GetMounts()))
	for n, m := range b.Container.GetMounts() {
		bind, err := b.bind(n, m)
		if err != nil {
			return nil, fmt.Errorf("mount at %q: %w", m.GetContainerPath(), err)
		}
		out = append(out, bind)
	}
	return out, nil
}

func (b *builder) bind(n int, m *cri.Mount) (specs.Mount, error) {
	if IsImageMount(m) {
		return b.imageBind(n, m)
	}
	source, destination, err := b.ends(m)
	if err != nil {
		return specs.Mount{}, err
	}
	propagation, err := b.propagation(m, source)
	if err != nil {
		return specs.Mount{}, err
	}
	access, err := b.bindAccess(m)
	if err != nil {
		return specs.Mount{}, err
	}
	options, err := mountOptions(m, "rbind", propagation, access)
	if err != nil {
		return specs.Mount{}, err
	}
	bind := specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options}
	if len(m.GetUidMappings()) > 0 || len(m.GetGidMappings()) > 0 {
		if err := b.idmap(&bind, m); err != nil {
			return specs.Mount{}, err
		}
	}
	return bind, nil
}

// mountOptions adds those that the mount asks for.
func mountOptions(m *cri.Mount, options ...string) ([]string, error) {
	for _, o := range m.GetMountOptions() {
		if !slices.Contains([]string{"noexec", "nodev", "nosuid"}, o) {
			return nil, fmt.Errorf("mount option %q: %w", o, errs.Unsupported)
		}
		options = append(options, o)
	}
	return options, nil
}

// ends returns where a mount comes from and goes to.
func (b *builder) ends(m *cri.Mount) (source, destination string, err error) {
	source = m.GetHostPath()
	if resolved, ok := b.Sources[source]; ok {
		source = resolved
	}
	if !path.IsAbs(source) || strings.ContainsRune(source, 0) {
		return "", "", fmt.Errorf("host path %q is not absolute: %w", m.GetHostPath(), errs.Invalid)
	}
	destination, err = containerPath(m)
	return source, destination, err
}

func containerPath(m *cri.Mount) (string, error) {
	p := path.Clean("/" + m.GetContainerPath())
	if p == "/" {
		return "", fmt.Errorf("container path: %w", errs.Invalid)
	}
	return p, check.Path(p)
}

// propagation checks that the host's mount can give what is asked for, and
// opens the container's root file system to it.
func (b *builder) propagation(m *cri.Mount, source string) (string, error) {
	switch m.GetPropagation() {
	case cri.MountPropagation_PROPAGATION_PRIVATE:
		return "rprivate", nil
	case cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		p, err := b.System.Propagation(source)
		if err != nil {
			return "", err
		}
		if !p.Shared && !p.Slave {
			return "", fmt.Errorf("%s lies on %s, which is neither a shared nor a slave mount: %w", source, p.MountPoint, errs.Invalid)
		}
		if b.spec.Linux.RootfsPropagation == "" {
			b.spec.Linux.RootfsPropagation = "rslave"
		}
		return "rslave", nil
	case cri.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		p, err := b.System.Propagation(source)
		if err != nil {
			return "", err
		}
		if !p.Shared {
			return "", fmt.Errorf("%s lies on %s, which is not a shared mount: %w", source, p.MountPoint, errs.Invalid)
		}
		b.spec.Linux.RootfsPropagation = "rshared"
		return "rshared", nil
	}
	return "", fmt.Errorf("propagation %s: %w", m.GetPropagation(), errs.Invalid)
}

// bindAccess returns rw, ro, or rro for all that is mounted below too (Linux
// 5.12), which CRI binds to two conditions.
func (b *builder) bindAccess(m *cri.Mount) (string, error) {
	if !m.GetRecursiveReadOnly() {
		if m.GetReadonly() {
			return "ro", nil
		}
		return "rw", nil
	}
	switch {
	case !m.GetReadonly():
		return "", fmt.Errorf("recursive read-only mount that is not read-only: %w", errs.Invalid)
	case m.GetPropagation() != cri.MountPropagation_PROPAGATION_PRIVATE:
		return "", fmt.Errorf("recursive read-only mount with propagation: %w", errs.Invalid)
	case !b.Host.RecursiveReadOnly:
		return "", fmt.Errorf("%w: the kernel has no mount_setattr, or the program of the runtime handler does not know of it: %w", crierrors.ErrRROUnsupported, errs.Unsupported)
	}
	return "rro", nil
}

// idmap gives the mount its mappings; the runtime makes it idmapped by them.
func (b *builder) idmap(bind *specs.Mount, m *cri.Mount) error {
	if !b.Host.IDMapMounts {
		return fmt.Errorf("idmapped mount: %w", errs.Unsupported)
	}
	var err error
	if bind.UIDMappings, err = mappings(m.GetUidMappings()); err != nil {
		return err
	}
	if bind.GIDMappings, err = mappings(m.GetGidMappings()); err != nil {
		return err
	}
	if len(bind.UIDMappings) == 0 || len(bind.GIDMappings) == 0 {
		return fmt.Errorf("idmapped mount needs mappings of both uids and gids: %w", errs.Invalid)
	}
	return nil
}
