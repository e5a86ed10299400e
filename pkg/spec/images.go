package spec

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// IsImageMount reports whether a mount is of an image and not of a host path. A sub
// path belongs to an image, which is then missing.
func IsImageMount(m *cri.Mount) bool {
	return m.GetImage().GetImage() != "" || m.GetImageSubPath() != ""
}

// imageBind is a mount of an image, which the caller has mounted. It is read-only
// whatever the mount says, its owners are mapped already, and nothing is ever
// mounted below it that could propagate.
func (b *builder) imageBind(n int, m *cri.Mount) (specs.Mount, error) {
	source := b.ImageMounts[n]
	if m.GetHostPath() != "" || source == "" {
		return specs.Mount{}, fmt.Errorf("image %q and host path %q: a mount has one or the other: %w", m.GetImage().GetImage(), m.GetHostPath(), errs.Invalid)
	}
	destination, err := containerPath(m)
	if err != nil {
		return specs.Mount{}, err
	}
	options, err := mountOptions(m, "rbind", "rprivate", "ro", "nosuid", "nodev")
	if err != nil {
		return specs.Mount{}, err
	}
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options}, nil
}
