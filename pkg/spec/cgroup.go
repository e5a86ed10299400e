package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// The cgroup drivers.
const (
	Cgroupfs = "cgroupfs"
	Systemd  = "systemd"
)

// CgroupParent checks a pod's cgroup parent and puts it into the driver's
// form: a path from the hierarchies' root for cgroupfs, the last slice's name
// for systemd. Empty means Berth's own: /berth, or berth.slice.
func CgroupParent(parent, driver string) (string, error) {
	if strings.ContainsAny(parent, "\x00\n:") {
		return "", fmt.Errorf("cgroup parent %q: %w", parent, errs.Invalid)
	}
	clean := path.Clean("/" + parent)
	if driver != Systemd {
		if clean == "/" {
			return "/berth", nil
		}
		return clean, nil
	}
	if clean == "/" {
		return "berth.slice", nil
	}
	slice := path.Base(clean)
	if _, err := ExpandSlice(slice); err != nil {
		return "", err
	}
	return slice, nil
}

// CgroupsPath returns OCI's cgroupsPath of a container: parent/id for
// cgroupfs, slice:berth:id for systemd. The parent is in CRI's form.
func CgroupsPath(parent, id, driver string) string {
	if driver == Systemd {
		return path.Base(path.Clean("/"+parent)) + ":berth:" + id
	}
	return path.Join("/", parent, id)
}

// ExpandSlice returns where systemd puts a slice: a-b.slice lies at
// /a.slice/a-b.slice.
func ExpandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.ContainsAny(name, "/\x00\n") {
		return "", fmt.Errorf("%q is no name of a systemd slice: %w", slice, errs.Invalid)
	}
	if name == "-" {
		return "/", nil
	}
	var out, prefix string
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is no name of a systemd slice: %w", slice, errs.Invalid)
		}
		prefix += part
		out += "/" + prefix + ".slice"
		prefix += "-"
	}
	return out, nil
}
