package image_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/testutil"
)

// two are images that share their first layer, as sample makes it.
func two(t *testing.T, reg *testregistry.Server) (a, b *images.Built, refs [2]string) {
	t.Helper()
	a, b = build(t, sample("a")), build(t, sample("b"))
	return a, b, [2]string{reg.Put("a", "v1", a), reg.Put("b", "v1", b)}
}

// bothPulled opens a service and pulls both images.
func (f form) bothPulled(t *testing.T, dir string, refs [2]string) (s *image.Service, a, b image.Image) {
	t.Helper()
	s = f.open(t, dir)
	return s, pulled(t, s, refs[0]), pulled(t, s, refs[1])
}

func TestAfterAnUncleanStopALayerIsVerifiedBeforeItIsUsed(t *testing.T) {
	forms(t, afterAnUncleanStopALayerIsVerifiedBeforeItIsUsed)
}

func afterAnUncleanStopALayerIsVerifiedBeforeItIsUsed(t *testing.T, f form) {
	dir, reg := t.TempDir(), serve(t, nil)
	_, _, refs := two(t, reg)
	first, a, b := f.bothPulled(t, dir, refs)
	if err := first.Tag(t.Context(), refs[0], "mine:v7"); err != nil {
		t.Fatal(err)
	}
	// A power cut emptied a file of an image's own layer.
	f.spoil(t, dir, a.Layers[1], "srv/b")
	s := f.reboot(t, dir)
	if _, err := s.Mount(t.Context(), image.MountRequest{ContainerID: "c", Image: a.ID}); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "pull") {
		t.Fatalf("mounted a damaged layer: %v", err)
	}
	if _, err := s.Get(refs[0]); !errors.Is(err, errs.NotFound) {
		t.Errorf("the damaged image is shown: %v", err)
	}
	if got := content(t, mount(t, s, image.MountRequest{ContainerID: "other", Image: b.ID}), "etc/motd"); got != "b" {
		t.Errorf("the other image has %q", got)
	}
	before := reg.Requests("GET", "/v2/a/blobs/"+blobOf(t, s, a, 0))
	again := pulled(t, s, refs[0])
	if got := reg.Requests("GET", "/v2/a/blobs/"+blobOf(t, s, a, 0)); got != before {
		t.Error("a layer that was whole has been pulled again")
	}
	if again.ID != a.ID || !slices.Contains(again.RepoTags, "docker.io/library/mine:v7") {
		t.Errorf("pulled again: %v", again.RepoTags)
	}
	if got := content(t, mount(t, s, image.MountRequest{ContainerID: "c", Image: a.ID}), "srv/b"); got != "b" {
		t.Errorf("content: %q", got)
	}
	problems, err := s.Check(t.Context(), true, nil)
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].What, "set aside") || !problems[0].Repaired {
		t.Errorf("problems: %v, %v", problems, err)
	}
}

// blobOf returns the digest of an image's nth layer as it was pulled.
func blobOf(t *testing.T, s *image.Service, i image.Image, n int) string {
	t.Helper()
	built := build(t, sample("a"))
	if built.Config != i.ID {
		t.Fatal("not the image that was built")
	}
	return built.Layers[n].Digest.String()
}

func TestRunVerifiesWhatWasWrittenBeforeAnUncleanStop(t *testing.T) {
	forms(t, runVerifiesWhatWasWrittenBeforeAnUncleanStop)
}

func runVerifiesWhatWasWrittenBeforeAnUncleanStop(t *testing.T, f form) {
	dir, reg := t.TempDir(), serve(t, nil)
	_, _, refs := two(t, reg)
	_, a, _ := f.bothPulled(t, dir, refs)
	f.spoil(t, dir, a.Layers[1], "etc/motd")
	s := f.reboot(t, dir)
	if len(s.List()) != 2 {
		t.Fatalf("opening waited for the verification: %v", s.List())
	}
	runUntil(t, s, func() bool { return len(s.List()) == 1 })
	if _, err := s.Get(refs[1]); err != nil {
		t.Errorf("an image that is whole: %v", err)
	}
	if got := pulled(t, s, refs[0]); got.ID != a.ID || len(s.List()) != 2 {
		t.Errorf("pulled again: %v", s.List())
	}
}

// runUntil has the service Run until something is so.
func runUntil(t *testing.T, s *image.Service, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	testutil.Await(t, 10*time.Second, func() error {
		if !so() {
			return errors.New("it is not so")
		}
		return nil
	})
}

func TestACleanStopLeavesNothingToVerify(t *testing.T) { forms(t, aCleanStopLeavesNothingToVerify) }

func aCleanStopLeavesNothingToVerify(t *testing.T, f form) {
	dir := t.TempDir()
	s, err := image.Open(t.Context(), image.Options{Root: dir + "/root", State: dir + "/state", LayerBackend: layer.Backend(f)})
	if err != nil {
		t.Fatal(err)
	}
	i := loaded(t, s, "app:v1", sample("x"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir + "/root/layers/.unclean"); err != nil || len(left) != 0 {
		t.Errorf("marks: %v, %v", left, err)
	}
	// Nobody looks for damage that a power cut cannot have done.
	f.spoil(t, dir, i.Layers[1], "srv/b")
	mount(t, f.open(t, dir), image.MountRequest{ContainerID: "c", Image: i.ID})
}

func TestADamagedRecordOrContentHidesItsImageOnly(t *testing.T) {
	forms(t, aDamagedRecordOrContentHidesItsImageOnly)
}

func aDamagedRecordOrContentHidesItsImageOnly(t *testing.T, f form) {
	remove := func(p string) error { return os.RemoveAll(p) }
	for what, damage := range map[string]func(dir string, i image.Image) error{
		"record": func(dir string, i image.Image) error {
			return os.Truncate(dir+"/root/images/records/sha256-"+i.ID.Encoded()+".json", 0)
		},
		"config": func(dir string, i image.Image) error {
			return remove(dir + "/root/images/blobs/sha256/" + i.ID.Encoded())
		},
		"manifest": func(dir string, i image.Image) error {
			return os.Truncate(dir+"/root/images/blobs/sha256/"+i.Digest.Encoded(), 1)
		},
		"layer":   func(dir string, i image.Image) error { return remove(layerOf(dir, i.Layers[1])) },
		"content": func(dir string, i image.Image) error { return remove(f.content(dir, i.Layers[1])) },
	} {
		t.Run(what, func(t *testing.T) {
			dir, reg := t.TempDir(), serve(t, nil)
			_, _, refs := two(t, reg)
			first, a, _ := f.bothPulled(t, dir, refs)
			if err := first.Tag(t.Context(), refs[0], "mine:v7"); err != nil {
				t.Fatal(err)
			}
			if err := damage(dir, a); err != nil {
				t.Fatal(err)
			}
			s := f.open(t, dir)
			if all := s.List(); len(all) != 1 {
				t.Fatalf("listed: %v", all)
			}
			if _, err := s.Get("mine:v7"); !errors.Is(err, errs.NotFound) {
				t.Errorf("the damaged image is shown: %v", err)
			}
			if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) == 0 {
				t.Errorf("nobody tells: %v, %v", problems, err)
			}
			again := pulled(t, s, refs[0])
			if again.ID != a.ID || !slices.Contains(again.RepoTags, "docker.io/library/mine:v7") {
				t.Errorf("pulled again: %v", again.RepoTags)
			}
			if got := content(t, mount(t, s, image.MountRequest{ContainerID: "c", Image: a.ID}), "etc/motd"); got != "a" {
				t.Errorf("content: %q", got)
			}
			if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
				t.Errorf("pulled again: %v, %v", problems, err)
			}
		})
	}
}

func TestALayerThatComesBackMakesAllItsImagesWhole(t *testing.T) {
	forms(t, aLayerThatComesBackMakesAllItsImagesWhole)
}

func aLayerThatComesBackMakesAllItsImagesWhole(t *testing.T, f form) {
	dir, reg := t.TempDir(), serve(t, nil)
	_, _, refs := two(t, reg)
	_, a, _ := f.bothPulled(t, dir, refs)
	if err := os.RemoveAll(layerOf(dir, a.Layers[0])); err != nil {
		t.Fatal(err)
	}
	s := f.open(t, dir)
	if all := s.List(); len(all) != 0 {
		t.Fatalf("listed: %v", all)
	}
	pulled(t, s, refs[0])
	if all := s.List(); len(all) != 2 {
		t.Errorf("listed: %v", all)
	}
}

func TestADamagedImageCanBeRemoved(t *testing.T) { forms(t, aDamagedImageCanBeRemoved) }

func aDamagedImageCanBeRemoved(t *testing.T, f form) {
	dir := t.TempDir()
	i := loaded(t, f.open(t, dir), "app:v1", sample("x"))
	if err := os.RemoveAll(layerOf(dir, i.Layers[0])); err != nil {
		t.Fatal(err)
	}
	s := f.open(t, dir)
	if err := s.Remove(t.Context(), "app:v1"); err != nil {
		t.Fatal(err)
	}
	nothing(t, s)
	if left := stored(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestVerifyFindsAByteAndRepairSetsItAside(t *testing.T) {
	forms(t, verifyFindsAByteAndRepairSetsItAside)
}

func verifyFindsAByteAndRepairSetsItAside(t *testing.T, f form) {
	dir, reg := t.TempDir(), serve(t, nil)
	_, _, refs := two(t, reg)
	s, a, b := f.bothPulled(t, dir, refs)
	running := mount(t, s, image.MountRequest{ContainerID: "running", Image: a.ID})
	untouched := mount(t, s, image.MountRequest{ContainerID: "untouched", Image: b.ID})
	if problems, err := s.Verify(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	f.spoil(t, dir, a.Layers[1], "srv/b")
	var last image.VerifyProgress
	problems, err := s.Verify(t.Context(), false, func(p image.VerifyProgress) { last = p })
	if err != nil || len(problems) != 1 || problems[0].Object != "layer "+a.Layers[1].String() || problems[0].Repaired {
		t.Fatalf("%v, %v", problems, err)
	}
	if last.Total == 0 || last.Done != last.Total {
		t.Errorf("progress ended with %+v", last)
	}
	if len(s.List()) != 2 {
		t.Error("something was repaired unasked")
	}
	problems, err = s.Verify(t.Context(), true, nil)
	if err != nil || len(problems) != 1 || !problems[0].Repaired || len(s.List()) != 1 {
		t.Fatalf("%v, %v", problems, err)
	}
	// What runs goes on, on the layer that is set aside, until it ends.
	if _, err := s.Check(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	if got := content(t, running, "srv/b"); got != "X" {
		t.Errorf("the running container sees %q", got)
	}
	if got := content(t, untouched, "etc/motd"); got != "b" {
		t.Errorf("another container sees %q", got)
	}
	pulled(t, s, refs[0])
	if got := content(t, mount(t, s, image.MountRequest{ContainerID: "new", Image: a.ID}), "srv/b"); got != "b" {
		t.Errorf("a new container sees %q", got)
	}
	if err := s.Unmount(t.Context(), "running"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(dir + "/root/layers/.damaged-*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestWhatIsMadeOfLayersIsMadeAgainWhereItIsUsed loses and damages the image that is
// composed of whole layers: nothing is pulled for that.
func TestWhatIsMadeOfLayersIsMadeAgainWhereItIsUsed(t *testing.T) {
	testutil.Root(t)
	f := form(layer.EROFS)
	for what, damage := range map[string]func(dir string) error{
		"gone":      os.RemoveAll,
		"no image":  func(dir string) error { return os.Remove(dir + "/image") },
		"no record": func(dir string) error { return os.Truncate(dir+"/image.json", 3) },
		"zeros":     func(dir string) error { return os.WriteFile(dir+"/image", make([]byte, 8192), 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			i := loaded(t, f.open(t, dir), "app:v1", sample("x"))
			all, err := filepath.Glob(dir + "/root/layers/sha*/image.json")
			if err != nil || len(all) != 1 {
				t.Fatal(all, err)
			}
			if err := damage(filepath.Dir(all[0])); err != nil {
				t.Fatal(err)
			}
			s := f.reboot(t, dir)
			if len(s.List()) != 1 {
				t.Fatalf("listed: %v", s.List())
			}
			if got := content(t, mount(t, s, image.MountRequest{ContainerID: "c", Image: i.ID}), "srv/b"); got != "b" {
				t.Errorf("a container sees %q", got)
			}
			if got := content(t, volume(t, s, "v", "app:v1", ""), "srv/b"); got != "b" {
				t.Errorf("a volume shows %q", got)
			}
			if problems, err := s.Verify(t.Context(), false, nil); err != nil || len(problems) != 0 {
				t.Errorf("made again: %v, %v", problems, err)
			}
		})
	}
}
