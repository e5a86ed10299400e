package image_test

import (
	"testing"

	"github.com/berth-run/berth/test/images"
)

func TestFsInfoCountsWhatIsSharedOnce(t *testing.T) {
	reg := serve(t, nil)
	s := service(t)
	used := func() (bytes uint64) {
		t.Helper()
		for range 2 { // the second answer is from memory
			info, err := s.FsInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if bytes != 0 && info.UsedBytes != bytes {
				t.Errorf("%d bytes, then %d", bytes, info.UsedBytes)
			}
			bytes = info.UsedBytes
		}
		return bytes
	}
	large := images.Layer{Files: []images.File{{Name: "large", Data: make([]byte, 1<<20)}}}
	loaded(t, s, "one:1", images.Image{Layers: []images.Layer{large}})
	first := used()
	loaded(t, s, "two:1", images.Image{Layers: []images.Layer{large, {Files: []images.File{{Name: "small"}}}}})
	if more := used() - first; first < 1<<20 || more > 1<<16 {
		t.Errorf("the first image takes %d bytes, the second %d more", first, more)
	}
	before := used()
	file := images.Blob{Title: "weights", Data: make([]byte, 1<<20)}
	for _, tag := range []string{"1", "2"} {
		ref, _ := put(t, reg, tag, images.Artifact{Type: "a/" + tag, Blobs: []images.Blob{file}})
		pulled(t, s, ref)
	}
	if more := used() - before; more < 1<<20 || more > 1<<20+1<<16 {
		t.Errorf("two artifacts of one file take %d bytes", more)
	}
	for _, ref := range []string{"one:1", "two:1"} {
		if err := s.Remove(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if left := used(); left < 1<<20 || left > 1<<20+1<<16 {
		t.Errorf("the artifacts alone take %d bytes", left)
	}
}
