package pod

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

// Cgroups say where a pod's processes are counted, as paths below the root of
// cgroups.
type Cgroups struct {
	// Parent has the cgroups of the pod's containers in it. Own tells that it has
	// nothing else: it counts what the pod uses.
	Parent string
	Own    bool
	driver string
}

// CgroupsOf returns those of a pod with a cgroup driver. The error is errs.Invalid
// for a parent that Run would refuse.
func CgroupsOf(p *Sandbox, driver string) (Cgroups, error) {
	parent, err := spec.CgroupParent(cgroupParent(p, driver), driver)
	if err != nil {
		return Cgroups{}, err
	}
	c := Cgroups{Parent: parent, Own: ownParent(p), driver: driver}
	if driver == spec.Systemd {
		c.Parent, err = spec.ExpandSlice(parent)
	}
	return c, err
}

// Container is the cgroup of one of the pod's containers; with the pod's own id
// that of its PID 1.
func (c Cgroups) Container(id string) string {
	if c.driver == spec.Systemd {
		return path.Join(c.Parent, "berth-"+id+".scope")
	}
	return path.Join(c.Parent, id)
}

// Of is the cgroup of a container, as it was created. outside tells that a plugin
// has put it elsewhere, so that Parent does not count it.
func (c Cgroups) Of(k *container.Container) (path string, outside bool) {
	at, err := locate(k.CgroupsPath, c.driver)
	if k.CgroupsPath == "" || err != nil { // the runtime would have refused it
		return c.Container(k.ID), false
	}
	return at, !strings.HasPrefix(at, strings.TrimSuffix(c.Parent, "/")+"/")
}

// locate returns where the cgroup of OCI's cgroupsPath is, below the hierarchies'
// root.
func locate(cgroupsPath, driver string) (string, error) {
	if driver != spec.Systemd {
		return path.Join("/", cgroupsPath), nil
	}
	slice, rest, _ := strings.Cut(cgroupsPath, ":")
	prefix, name, ok := strings.Cut(rest, ":")
	if !ok || name == "" {
		return "", fmt.Errorf("cgroups path %q is not of the form slice:prefix:name: %w", cgroupsPath, errs.Invalid)
	}
	if strings.HasSuffix(name, ".slice") { // as libcontainer has it
		return spec.ExpandSlice(name)
	}
	dir, err := spec.ExpandSlice(cmp.Or(slice, "system.slice"))
	return path.Join(dir, prefix+"-"+name+".scope"), err
}

// ownParent tells whether nobody else is in the pod's cgroup parent: it is of our
// making, or kubelet's, which names it after the pod's uid. Other parents may be
// any number of pods'.
func ownParent(p *Sandbox) bool {
	parent, uid := p.Config.GetLinux().GetCgroupParent(), p.Config.GetMetadata().GetUid()
	if parent == "" {
		return true
	}
	name := strings.TrimSuffix(path.Base(path.Clean("/"+parent)), ".slice")
	return uid != "" && (strings.HasSuffix(name, "pod"+uid) || strings.HasSuffix(name, "pod"+strings.ReplaceAll(uid, "-", "_")))
}

// cgroupParent is kubelet's choice, or a cgroup of the pod's own below Berth's.
func cgroupParent(p *Sandbox, driver string) string {
	if parent := p.Config.GetLinux().GetCgroupParent(); parent != "" {
		return parent
	}
	if driver == spec.Systemd {
		return "berth-" + p.ID + ".slice"
	}
	return "/berth/" + p.ID
}
