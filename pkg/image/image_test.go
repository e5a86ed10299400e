package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// open opens a service that keeps blobs, below dir.
func open(t testing.TB, dir string) *image.Service {
	t.Helper()
	return openWith(t, dir, image.Options{KeepBlobs: true, LayerBackend: "auto"})
}

func openWith(t testing.TB, dir string, o image.Options) *image.Service {
	t.Helper()
	o.Root, o.State = filepath.Join(dir, "root"), filepath.Join(dir, "state")
	s, err := image.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// service opens a service of its own.
func service(t testing.TB) *image.Service {
	t.Helper()
	testutil.Root(t)
	return open(t, t.TempDir())
}

// sample is an image of two layers, the second of which hides a file of the
// first.
func sample(text string) images.Image {
	return images.Image{Layers: []images.Layer{
		{Files: []images.File{
			{Name: "etc/", Mode: 0o755},
			{Name: "etc/motd", Data: []byte("old")},
			{Name: "etc/gone", Data: []byte("gone")},
			{Name: "srv/", Mode: 0o750, UID: 7, GID: 8},
			{Name: "srv/a", Data: []byte("a")},
		}},
		{Compression: images.Zstd, Files: []images.File{
			{Name: "etc/", Mode: 0o755}, {Name: "etc/.wh.gone"}, {Name: "etc/motd", Data: []byte(text)}, {Name: "srv/b", Data: []byte("b")},
		}},
	}}
}

// loaded loads an image under a name.
func loaded(t testing.TB, s *image.Service, name string, i images.Image) image.Image {
	t.Helper()
	var archive bytes.Buffer
	if err := images.Archive(&archive, name, i); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load(t.Context(), &archive)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("loaded %d images", len(got))
	}
	return got[0]
}

// mount mounts a root file system and unmounts it at the test's end.
func mount(t testing.TB, s *image.Service, r image.MountRequest) string {
	t.Helper()
	path, err := s.Mount(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(context.Background(), r.ContainerID); err != nil {
			t.Error(err)
		}
	})
	return path
}

func content(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLoadListGet(t *testing.T) {
	s := service(t)
	want := loaded(t, s, "app:v1", sample("new"))
	if diff := cmp.Diff([]string{"docker.io/library/app:v1"}, want.RepoTags); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"docker.io/library/app@" + want.Digest.String()}, want.RepoDigests); diff != "" {
		t.Error(diff)
	}
	if want.Size <= 0 || len(want.Layers) != 2 {
		t.Errorf("size %d, layers %v", want.Size, want.Layers)
	}
	id := want.ID.String()
	for _, ref := range []string{
		"app:v1", "docker.io/library/app:v1", "index.docker.io/library/app:v1", id, strings.TrimPrefix(id, "sha256:"), id[7:19], id[:20],
		"app@" + want.Digest.String(), "app:other@" + want.Digest.String(),
	} {
		if got, err := s.Get(ref); err != nil || got.ID != want.ID {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
	for _, ref := range []string{"app", "app:v2", "abcdef", "sha256:" + strings.Repeat("0", 64)} {
		if _, err := s.Get(ref); !errors.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if all := s.List(); len(all) != 1 || all[0].ID != want.ID {
		t.Errorf("list: %v", all)
	}
}

func TestImagesSurviveReopening(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	first, err := image.Open(t.Context(), image.Options{Root: dir + "/root", State: dir + "/state"})
	if err != nil {
		t.Fatal(err)
	}
	want := loaded(t, first, "app:v1", sample("new"))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	unfinished := []string{dir + "/root/images/records/.tmp-x.json-1", dir + "/root/images/refs/.tmp-y.json-2"}
	for _, p := range unfinished {
		if err := os.WriteFile(p, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, dir).Get("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, p := range unfinished {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stayed: %v", p, err)
		}
	}
}

func TestMountShowsTheImage(t *testing.T) {
	s := service(t)
	i := loaded(t, s, "app:v1", sample("new"))
	r := image.MountRequest{ContainerID: "c1", Image: i.ID}
	root := mount(t, s, r)
	if got := content(t, root, "etc/motd"); got != "new" {
		t.Errorf("motd: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(root, "etc/gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("whiteout: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "srv"), &st); err != nil || st.Mode&0o7777 != 0o750 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("a directory that a layer implies: mode %o, owner %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(root, "written"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := s.Mount(t.Context(), r)
	if err != nil || again != root {
		t.Errorf("again: %q, %v", again, err)
	}
	content(t, again, "written")
	if bytes, inodes, err := s.Usage(t.Context(), "c1"); err != nil || bytes == 0 || inodes != 1 {
		t.Errorf("usage: %d bytes, %d inodes, %v", bytes, inodes, err)
	}
	for range 2 {
		if err := s.Unmount(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount point stayed: %v", err)
	}
	if _, _, err := s.Usage(t.Context(), "c1"); !errors.Is(err, errs.NotFound) {
		t.Errorf("usage after unmount: %v", err)
	}
}

func TestMountInAUserNamespace(t *testing.T) {
	s := service(t)
	i := loaded(t, s, "app:v1", sample("new"))
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200_000, Size: 65536}}
	root := mount(t, s, image.MountRequest{ContainerID: "c1", Image: i.ID, UIDMappings: m, GIDMappings: m})
	for path, want := range map[string]uint32{".": 200_000, "etc/motd": 200_000, "srv": 200_007} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(root, path), &st); err != nil || st.Uid != want {
			t.Errorf("%s: owner %d, want %d, %v", path, st.Uid, want, err)
		}
	}
	p := filepath.Join(root, "etc/motd")
	if err := os.Chown(p, 200_001, 200_001); err != nil {
		t.Fatalf("copy up: %v", err)
	}
	plain := mount(t, s, image.MountRequest{ContainerID: "c2", Image: i.ID})
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(plain, "etc/motd"), &st); err != nil || st.Uid != 0 {
		t.Errorf("the layer has changed: owner %d, %v", st.Uid, err)
	}
}

func TestRemoveKeepsTheLayersOfAMount(t *testing.T) {
	s := service(t)
	i := loaded(t, s, "app:v1", sample("new"))
	if err := s.Tag(t.Context(), "app:v1", "app:v2"); err != nil {
		t.Fatal(err)
	}
	root := mount(t, s, image.MountRequest{ContainerID: "c1", Image: i.ID})
	if err := s.Remove(t.Context(), "app:v2"); err != nil {
		t.Fatal(err)
	}
	if len(s.List()) != 0 {
		t.Error("image is still listed")
	}
	if got := content(t, root, "srv/a"); got != "a" {
		t.Errorf("content: %q", got)
	}
	if err := s.Remove(t.Context(), "app:v1"); !errors.Is(err, errs.NotFound) {
		t.Errorf("again: %v", err)
	}
	if err := s.Unmount(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	problems, err := s.Check(t.Context(), true, nil)
	if err != nil || len(problems) == 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
	if problems, err = s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("after repair: %v, %v", problems, err)
	}
}

func TestUntagTakesOneName(t *testing.T) {
	s := service(t)
	loaded(t, s, "app:v1", sample("new"))
	if err := s.Tag(t.Context(), "app:v1", "other:v2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Untag(t.Context(), "app:v1"); err != nil {
		t.Fatal(err)
	}
	i, err := s.Get("other:v2")
	if err != nil || !slices.Equal(i.RepoTags, []string{"docker.io/library/other:v2"}) || len(i.RepoDigests) != 0 {
		t.Errorf("%v, %v", i, err)
	}
	if err := s.Untag(t.Context(), "other:v2"); err != nil || len(s.List()) != 0 {
		t.Errorf("last name: %v, %v", s.List(), err)
	}
}
