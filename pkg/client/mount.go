package client

import (
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// ParseMount reads what --mount takes, in Docker's words: keys and values with
// commas between. type is bind, volume (the default) or image; source, a path from
// dir on, a volume's name or an image's; target; readonly; of an image subpath, and
// of a path bind-propagation.
func ParseMount(s, dir string) (Volume, error) {
	bad := func(why string) (Volume, error) {
		return Volume{}, fail(errs.Invalid, "mount %q: %s; write type=bind|volume|image,source=SOURCE,target=PATH[,readonly][,subpath=PATH]", s, why)
	}
	m := mountFields{kind: "volume"}
	for field := range strings.SplitSeq(s, ",") {
		if why := m.set(strings.Cut(field, "=")); why != "" {
			return bad(why)
		}
	}
	v := m.volume
	if !path.IsAbs(v.Path) || v.Path == "/" {
		return bad("target must be an absolute path in the container, and not /")
	}
	if v.SubPath != "" && m.kind != "image" || v.Propagation != 0 && m.kind != "bind" {
		return bad("subpath is for images, bind-propagation for type=bind")
	}
	switch {
	case m.kind == "bind" && filepath.IsAbs(m.source):
		v.HostPath = filepath.Clean(m.source)
	case m.kind == "bind" && m.source != "":
		v.HostPath = filepath.Join(dir, m.source)
	case m.kind == "volume" && volumeName.MatchString(m.source):
		v.Name = m.source
	case m.kind == "image" && m.source != "":
		v.Image, v.ReadOnly = m.source, true
	default:
		return bad("source must be a path, the name of a volume or that of an image, as type says")
	}
	return v, nil
}

// mountFields are the fields of a --mount.
type mountFields struct {
	kind, source string
	volume       Volume
}

func (m *mountFields) set(key, value string, _ bool) (why string) {
	switch key {
	case "type":
		m.kind = value
		if value != "bind" && value != "volume" && value != "image" {
			return "there is no type \"" + value + "\""
		}
	case "source", "src":
		m.source = value
	case "target", "dst", "destination":
		m.volume.Path = path.Clean(value)
	case "subpath", "image-subpath":
		m.volume.SubPath = value
	case "readonly", "ro":
		on, err := strconv.ParseBool(value)
		if value != "" && err != nil {
			return key + " is true or false"
		}
		m.volume.ReadOnly = on || value == ""
	case "bind-propagation":
		propagation, ok := propagations[value]
		if !ok {
			return "there is no propagation \"" + value + "\" (private, rslave, rshared)"
		}
		m.volume.Propagation = propagation
	default:
		return "there is no key \"" + key + "\""
	}
	return ""
}
