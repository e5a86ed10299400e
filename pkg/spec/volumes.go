package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// maxVolumes bounds what one image can make the node prepare.
const maxVolumes = 256

// ImageVolumes returns the container paths of the image's VOLUMEs that no
// configured mount covers, clean and in order. The caller prepares a directory
// for each and copies the image's content into it, under the root file system
// and never through a joined path (CVE-2022-23648). One in /proc, /sys or /dev,
// which systemd's images have, is left out: only kubelet mounts things there.
func ImageVolumes(image ispec.ImageConfig, c *cri.ContainerConfig) ([]string, error) {
	if len(image.Volumes) > maxVolumes {
		return nil, fmt.Errorf("image has %d volumes, more than %d: %w", len(image.Volumes), maxVolumes, errs.Invalid)
	}
	var out []string
	for v := range image.Volumes {
		p := path.Clean("/" + v)
		if strings.ContainsRune(v, 0) || p == "/" {
			return nil, fmt.Errorf("image volume %q: %w", v, errs.Invalid)
		}
		top, _, _ := strings.Cut(p[1:], "/")
		if top == "proc" || top == "sys" || top == "dev" {
			continue
		}
		covered := slices.ContainsFunc(c.GetMounts(), func(m *cri.Mount) bool { return path.Clean("/"+m.GetContainerPath()) == p })
		if !covered && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out, nil
}
