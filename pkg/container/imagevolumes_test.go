package container_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
)

func TestImageVolumesAreKnownByTheirImages(t *testing.T) {
	n := newNode(t)
	config := testConfig("a")
	config.Mounts = []*cri.Mount{
		{ContainerPath: "/h", HostPath: t.TempDir()},
		{ContainerPath: "/m", Image: &cri.ImageSpec{Image: "model"}, ImageSubPath: "weights"},
	}
	id := n.create(config)
	want := map[int]string{1: imageID.String()}
	if got := n.get(id).VolumeImages; !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	n.restart()
	if got := n.get(id).VolumeImages; !maps.Equal(got, want) {
		t.Errorf("after a restart %v", got)
	}
	config = testConfig("b")
	config.Mounts = []*cri.Mount{{ContainerPath: "/m", Image: &cri.ImageSpec{Image: "absent"}}}
	if _, err := n.Create(t.Context(), testPod(), config); !errors.Is(err, image.ErrVolume) || !errors.Is(err, errs.NotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
	if got := n.images.mounts(); got != 1 {
		t.Errorf("%d root file systems are mounted", got)
	}
}

func TestAnArtifactDoesNotRun(t *testing.T) {
	n := newNode(t)
	config := testConfig("a")
	config.Image.Image = "model"
	if _, err := n.Create(t.Context(), testPod(), config); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "mount it as an image volume") {
		t.Errorf("got %v", err)
	}
}
