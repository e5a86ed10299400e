package e2e

import (
	"fmt"
	"sync/atomic"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

var imageNumber atomic.Int64

// variant gives the node a changed busybox and returns its name.
func variant(t *testing.T, change func(*images.Image)) string {
	t.Helper()
	i, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	change(&i)
	name := fmt.Sprintf("e2e.local/variant:%d", imageNumber.Add(1))
	if err := load(name, i); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAPullNeedsNoPod(t *testing.T) {
	ref := startRegistry(t, nil).Put("app", "1", shipped(t))
	r, err := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: ref, Annotations: map[string]string{"of": "no effect"}}, SandboxConfig: &cri.PodSandboxConfig{LogDirectory: "nowhere"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, r.ImageRef) })
	s := imageStatus(t, ref)
	if s.GetId() != r.ImageRef || s.Spec.GetImage() != s.Id || len(s.Spec.GetAnnotations()) != 0 {
		t.Errorf("pulled %s, there is %v", r.ImageRef, s)
	}
}

// TestAnImageRunsThatHasLayersTwice has the layer of no files that builders write
// for an instruction that changes none, and one of files.
func TestAnImageRunsThatHasLayersTwice(t *testing.T) {
	config := sh("cat /d/f /d/g; ls /d")
	config.Image.Image = variant(t, func(i *images.Image) {
		empty := images.Layer{}
		files := images.Layer{Files: []images.File{{Name: "d/f", Data: []byte("f\n")}}}
		between := images.Layer{Files: []images.File{{Name: "d/.wh.f"}, {Name: "d/g", Data: []byte("g\n")}}}
		i.Layers = append(i.Layers, empty, files, empty, between, files, empty)
	})
	if out := runPod(t).start(config).output(); out != "f\ng\nf\ng" {
		t.Errorf("%q", out)
	}
}
