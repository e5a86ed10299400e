package resource

import (
	"path"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Devices are what --device gives to a container: nodes of the host, or directories of
// them, and devices that vendors describe (CDI). The zero value is empty.
type Devices struct {
	Nodes []*runtimeapi.Device
	CDI   []*runtimeapi.CDIDevice
}

// Add reads what --device takes: SOURCE[:PATH][:PERMISSIONS] as with Docker, or
// VENDOR/CLASS=NAME, whose form is the daemon's to judge.
func (d *Devices) Add(s string) error {
	if !path.IsAbs(s) && strings.Contains(s, "=") {
		d.CDI = append(d.CDI, &runtimeapi.CDIDevice{Name: s})
		return nil
	}
	parts := strings.Split(s, ":")
	n := &runtimeapi.Device{HostPath: parts[0], ContainerPath: parts[0], Permissions: "rwm"}
	if last := parts[len(parts)-1]; len(parts) > 1 && last != "" && strings.Trim(last, "rwm") == "" {
		n.Permissions = last
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 2 {
		n.ContainerPath = parts[1]
	}
	if len(parts) > 2 || !path.IsAbs(n.HostPath) || !path.IsAbs(n.ContainerPath) || path.Clean(n.ContainerPath) == "/" {
		return invalid("device %q: write /dev/NAME[:PATH][:rwm], or VENDOR/CLASS=NAME", s)
	}
	d.Nodes = append(d.Nodes, n)
	return nil
}
