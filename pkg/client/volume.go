package client

import (
	"path"
	"path/filepath"
	"regexp"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Volume is one -v or --mount: a host path, a named volume or an image, where it is
// mounted, how.
type Volume struct {
	// Name is that of a named volume, whose directory the daemon owns. Image is that
	// of an image or artifact, of which SubPath is mounted, or all. Else HostPath is
	// set.
	Name           string
	Image, SubPath string
	HostPath       string
	Path           string
	ReadOnly       bool
	Propagation    runtimeapi.MountPropagation
}

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

var propagations = map[string]runtimeapi.MountPropagation{
	"private":  runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
	"rprivate": runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
	"rslave":   runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	"rshared":  runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
}

// ParseVolume reads what -v takes: HOST:PATH[:OPTIONS], where HOST is a path
// (relative ones begin with ./ or ../ and count from dir) or the name of a
// volume, and OPTIONS are ro, rw and a propagation, with commas between.
func ParseVolume(s, dir string) (Volume, error) {
	bad := func(why string) (Volume, error) {
		return Volume{}, fail(errs.Invalid, "volume %q: %s; write HOSTPATH:PATH[:ro] or NAME:PATH[:ro]", s, why)
	}
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return bad("it has not two or three parts")
	}
	v := Volume{Path: path.Clean(parts[1])}
	if !path.IsAbs(parts[1]) || v.Path == "/" {
		return bad("the path in the container must be absolute and not /")
	}
	switch source := parts[0]; {
	case filepath.IsAbs(source):
		v.HostPath = filepath.Clean(source)
	case source == "." || source == ".." || strings.HasPrefix(source, "./") || strings.HasPrefix(source, "../"):
		v.HostPath = filepath.Join(dir, source)
	case volumeName.MatchString(source):
		v.Name = source
	default:
		return bad("its first part is neither a path nor a volume's name")
	}
	if len(parts) == 3 {
		if why := v.setOptions(parts[2]); why != "" {
			return bad(why)
		}
	}
	return v, nil
}

func (v *Volume) setOptions(s string) (why string) {
	for option := range strings.SplitSeq(s, ",") {
		propagation, ok := propagations[option]
		switch {
		case option == "ro":
			v.ReadOnly = true
		case option == "rw":
		case ok:
			v.Propagation = propagation
		default:
			return "there is no option \"" + option + "\" (ro, rw, private, rslave, rshared)"
		}
	}
	return ""
}

// Mount is the volume as CRI says it; source is the directory of a named one, and
// the id of an image.
func (v Volume) Mount(source string) *runtimeapi.Mount {
	m := &runtimeapi.Mount{ContainerPath: v.Path, Readonly: v.ReadOnly, Propagation: v.Propagation}
	if v.Image == "" {
		m.HostPath = source
		return m
	}
	m.Image, m.ImageSubPath = &runtimeapi.ImageSpec{Image: source, UserSpecifiedImage: v.Image}, v.SubPath
	return m
}
