package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec/check"
	"github.com/berth-run/berth/pkg/spec/edit"
)

// devices sets device nodes and the device cgroup. The customary nodes
// (/dev/null and so on) are added by the runtime.
func (b *builder) devices() error {
	if b.privileged() {
		b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		if !b.Options.PrivilegedWithoutHostDevices {
			all, err := b.System.Devices("/dev")
			if err != nil {
				return err
			}
			b.spec.Linux.Devices = all
		}
	} else {
		b.spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	}
	for _, d := range b.Container.GetDevices() {
		if err := b.device(d); err != nil {
			return err
		}
	}
	return nil
}

// device adds one configured device, or all below a directory.
func (b *builder) device(d *cri.Device) error {
	hostPath := path.Clean(d.GetHostPath())
	target := d.GetContainerPath()
	if target == "" {
		target = hostPath
	}
	if !path.IsAbs(hostPath) || !path.IsAbs(target) || path.Clean(target) == "/" {
		return fmt.Errorf("device %q at %q: paths must be absolute: %w", d.GetHostPath(), d.GetContainerPath(), errs.Invalid)
	}
	if err := check.Path(target); err != nil {
		return fmt.Errorf("device %s: %w", hostPath, err)
	}
	access, err := deviceAccess(d.GetPermissions())
	if err != nil {
		return fmt.Errorf("device %s: %w", hostPath, err)
	}
	nodes, err := b.System.Devices(hostPath)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		source := n.Path
		n.Path = path.Join(target, strings.TrimPrefix(n.Path, hostPath))
		if b.inUserNamespace() && n.Path != source {
			// No nodes can be made there, and the runtime would mount the host's of the
			// same path, right or wrong.
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: n.Path, Type: "bind", Source: source, Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
		} else {
			edit.SetDevice(b.spec.Linux, n)
		}
		edit.Allow(b.spec.Linux, n, access)
	}
	return nil
}

func deviceAccess(permissions string) (string, error) {
	if permissions == "" {
		return "rwm", nil
	}
	if strings.Trim(permissions, "rwm") != "" {
		return "", fmt.Errorf("permissions %q: %w", permissions, errs.Invalid)
	}
	return permissions, nil
}
