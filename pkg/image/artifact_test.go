package image_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
)

const unpack = "io.deis.oras.content.unpack"

func packed(t testing.TB, c images.Compression, files ...images.File) []byte {
	t.Helper()
	stream, err := images.Layer{Files: files}.Stream()
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Pack(stream)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// model is an artifact of files and archives.
func model(t testing.TB, text string) images.Artifact {
	return images.Artifact{
		Type: "application/vnd.cncf.model.manifest.v1+json", Notes: map[string]string{"name": text},
		Blobs: []images.Blob{
			{Title: "weights/1.bin", MediaType: "application/vnd.cncf.model.weight.v1.raw", Data: []byte("weights of " + text)},
			{Title: "weights/2.bin", Data: []byte(text)},
			{Title: "README", MediaType: "text/plain", Data: []byte("the same for all")},
			{MediaType: "application/vnd.cncf.model.weight.config.v1.tar+gzip", Data: packed(t, images.Gzip,
				images.File{Name: "conf/", Mode: 0o755}, images.File{Name: "conf/model.json", Data: []byte("{}"), UID: 7, Mode: 0o640})},
			{Title: "docs", MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Notes: map[string]string{unpack: "true"}, Data: packed(t, images.Zstd,
				images.File{Name: "docs/a", Data: []byte("a")}, images.File{Name: "docs/b", Type: images.Symlink, Link: "a"})},
		},
	}
}

func put(t testing.TB, reg *testregistry.Server, tag string, a images.Artifact) (ref string, b *images.Built) {
	t.Helper()
	b, err := a.Build()
	if err != nil {
		t.Fatal(err)
	}
	return reg.Put("team/model", tag, b), b
}

func pulled(t testing.TB, s *image.Service, ref string) image.Image {
	t.Helper()
	i, err := s.Pull(t.Context(), image.PullRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// volume mounts an image as a container's only volume.
func volume(t testing.TB, s *image.Service, id, ref, sub string) string {
	t.Helper()
	v, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: id, Sources: []image.VolumeSource{{Ref: ref, SubPath: sub, Path: "/m"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, s, id) })
	return v[0].Path
}

func unmount(t testing.TB, s *image.Service, id string) {
	t.Helper()
	if err := s.Unmount(context.Background(), id); err != nil {
		t.Error(err)
	}
}

func inode(t testing.TB, parts ...string) [2]uint64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint64{st.Dev, st.Ino}
}

func TestAnArtifactIsOneTreeOfItsBlobs(t *testing.T) {
	dir := t.TempDir()
	reg := serve(t, nil)
	ref, b := put(t, reg, "1", model(t, "x"))
	s := open(t, dir)
	i := pulled(t, s, ref)
	if i.ID != b.Root.Digest || i.ArtifactType != "application/vnd.cncf.model.manifest.v1+json" || i.Annotations["name"] != "x" {
		t.Errorf("%+v", i)
	}
	if i.Size < 30 || len(i.RepoTags) != 1 || len(i.RepoDigests) != 1 || len(i.Layers) != 0 {
		t.Errorf("%+v", i)
	}
	root := volume(t, s, "c", ref, "")
	got := map[string]string{}
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, _ := os.Stat(filepath.Join(root, p))
			got[p] = info.Mode().String() + " " + content(t, root, p)
		}
		return err
	})
	want := map[string]string{
		"weights/1.bin": "-r--r--r-- weights of x", "weights/2.bin": "-r--r--r-- x", "README": "-r--r--r-- the same for all",
		"conf/model.json": "-rw-r----- {}", "docs/a": "-rw-r--r-- a", "docs/b": "-rw-r--r-- a",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	stored := filepath.Join(dir, "root", "images", "blobs", "sha256", b.Layers[0].Digest.Encoded())
	if inode(t, root, "weights/1.bin") != inode(t, stored) {
		t.Error("a file is a copy of its blob")
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("root: %v, %v", info.Mode(), err)
	}
}

func TestArtifactsShareFilesAndGoWhenNothingUsesThem(t *testing.T) {
	reg := serve(t, nil)
	first, b := put(t, reg, "1", model(t, "x"))
	second, _ := put(t, reg, "2", model(t, "y"))
	s := service(t)
	i := pulled(t, s, first)
	before := reg.Requests("GET", "/v2/team/model/blobs/"+b.Layers[2].Digest.String())
	pulled(t, s, second)
	if after := reg.Requests("GET", "/v2/team/model/blobs/"+b.Layers[2].Digest.String()); after != before {
		t.Errorf("a file that was here was fetched %d times more", after-before)
	}
	one, two := volume(t, s, "c", first, ""), volume(t, s, "d", first, "weights")
	other := volume(t, s, "e", second, "README")
	if inode(t, one, "weights/1.bin") != inode(t, two, "1.bin") || inode(t, one, "README") != inode(t, other) {
		t.Error("a file has several copies")
	}
	for _, ref := range []string{first, second} {
		if err := s.Remove(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	unmount(t, s, "c")
	if _, err := s.Check(t.Context(), true, func() []string { return []string{"d", "e"} }); err != nil {
		t.Fatal(err)
	}
	if text := content(t, two, "1.bin"); text != "weights of x" {
		t.Errorf("after removal: %q", text)
	}
	if again := pulled(t, s, first); again.ID != i.ID {
		t.Errorf("pulled again: %s", again.ID)
	}
	if after := reg.Requests("GET", "/v2/team/model/blobs/"+b.Layers[0].Digest.String()); after != 1 {
		t.Errorf("what a container uses was fetched %d times", after)
	}
	unmount(t, s, "d")
	unmount(t, s, "e")
	if err := s.Remove(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	nothing(t, s)
}

func TestVolumesOfImagesOutliveThem(t *testing.T) {
	s := service(t)
	i := loaded(t, s, "app:v1", sample("new"))
	all, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: "c", Sources: []image.VolumeSource{
		{Ref: "app:v1", Path: "/a"}, {Ref: i.ID.String(), SubPath: "etc", Path: "/b"}, {Ref: "app:v1", SubPath: "/etc/motd", Path: "/c"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, s, "c") })
	if err := s.Remove(t.Context(), "app:v1"); err != nil {
		t.Fatal(err)
	}
	if a, b, c := content(t, all[0].Path, "etc/motd"), content(t, all[1].Path, "motd"), content(t, all[2].Path); a != "new" || b != "new" || c != "new" {
		t.Errorf("%q %q %q", a, b, c)
	}
	if _, err := os.Stat(filepath.Join(all[0].Path, "etc/gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a layer hides: %v", err)
	}
	if all[2].Image != i.ID {
		t.Errorf("image %s", all[2].Image)
	}
	if err := unix.Unmount(all[1].Path, 0); err != nil { // as a reboot would
		t.Fatal(err)
	}
	again, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: "c"})
	if err != nil || len(again) != 3 || content(t, again[1].Path, "motd") != "new" || again[1].Image != i.ID {
		t.Errorf("mounted again: %v, %v", again, err)
	}
	unmount(t, s, "c")
	nothing(t, s)
}

func TestVolumesShowTheOwnersOfAUserNamespace(t *testing.T) {
	reg := serve(t, nil)
	ref, _ := put(t, reg, "1", model(t, "x"))
	s := service(t)
	pulled(t, s, ref)
	loaded(t, s, "app:v1", sample("new"))
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	all, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: "c", UIDMappings: maps, GIDMappings: maps, Sources: []image.VolumeSource{
		{Ref: "app:v1", SubPath: "srv", Path: "/a"}, {Ref: ref, Path: "/b"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, s, "c") })
	for path, want := range map[string]uint32{all[0].Path: 300007, all[1].Path: 300000, all[1].Path + "/README": 300000, all[1].Path + "/conf/model.json": 300007} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Uid != want {
			t.Errorf("%s belongs to %d, %v", path, st.Uid, err)
		}
	}
}

func TestSubPathsStayInTheImage(t *testing.T) {
	s := service(t)
	hostile := sample("new")
	hostile.Layers = append(hostile.Layers, images.Layer{Files: []images.File{
		{Name: "in", Type: images.Symlink, Link: "etc"},
		{Name: "abs", Type: images.Symlink, Link: "/etc"},
		{Name: "up", Type: images.Symlink, Link: "../../../../../../../etc"},
		{Name: "srv/up", Type: images.Symlink, Link: "../.."},
		{Name: "proc", Type: images.Symlink, Link: "/proc/self/root"},
		{Name: "loop", Type: images.Symlink, Link: "loop"},
		{Name: "pipe", Type: images.Fifo},
	}})
	loaded(t, s, "app:v1", hostile)
	for sub, what := range map[string]string{
		"abs": "out of the image", "abs/passwd": "out of the image", "up": "out of the image", "up/passwd": "out of the image", "srv/up": "out of the image",
		"proc": "out of the image", "proc/etc": "out of the image", "..": "out of the image", "etc/../../x": "out of the image", "loop": "symbolic links",
		"missing": "does not exist", "etc/motd/x": "does not exist", "pipe": "neither", "a\x00b": "", strings.Repeat("a", 5000): "too long",
	} {
		_, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: "c", Sources: []image.VolumeSource{{Ref: "app:v1", Path: "/ok"}, {Ref: "app:v1", SubPath: sub, Path: "/m"}}})
		if !errors.Is(err, image.ErrVolume) || !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "at /m") {
			t.Errorf("%.50q: %v", sub, err)
		}
	}
	for _, sub := range []string{"in/motd", "etc/../etc/motd", "./etc//motd"} {
		if text := content(t, volume(t, s, "d", "app:v1", sub)); text != "new" {
			t.Errorf("%s: %q", sub, text)
		}
		unmount(t, s, "d")
	}
	problems, err := s.Check(t.Context(), false, func() []string { return nil })
	if err != nil || len(problems) != 0 {
		t.Errorf("left over: %v, %v", problems, err)
	}
	_, err = s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: "c", Sources: []image.VolumeSource{{Ref: "absent", Path: "/m"}}})
	if !errors.Is(err, image.ErrVolume) || !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "pull it first") {
		t.Errorf("absent: %v", err)
	}
}

func TestHostileArtifactsLeaveNothing(t *testing.T) {
	reg := serve(t, nil)
	file := func(title string) images.Blob { return images.Blob{Title: title, Data: []byte("data")} }
	tarred := func(files ...images.File) images.Blob {
		return images.Blob{MediaType: "application/x-tar", Data: packed(t, images.Plain, files...)}
	}
	for name, blobs := range map[string][]images.Blob{
		"a title that climbs":           {file("../../../etc/cron.d/x")},
		"an absolute title":             {file("/etc/cron.d/x")},
		"a title of two files":          {file("a"), {Title: "a", Data: []byte("other")}},
		"an archive that climbs":        {tarred(images.File{Name: "../x", Data: []byte("x")})},
		"an archive with whiteouts":     {tarred(images.File{Name: "d/.wh.x"})},
		"an archive with a title's":     {file("d/f"), tarred(images.File{Name: "d/f", Data: []byte("x")})},
		"an archive that leads titles":  {file("d/f"), tarred(images.File{Name: "d", Type: images.Symlink, Link: "/tmp"})},
		"a hard link to nothing":        {tarred(images.File{Name: "x", Type: images.Hardlink, Link: "etc/shadow"})},
		"a link as a file's directory":  {file("d/f"), tarred(images.File{Name: "d", Data: []byte("x")})},
		"an archive that is none":       {{MediaType: "application/x-tar", Data: []byte("this is no archive at all")}},
		"an archive that is cut":        {{MediaType: "application/x-tar+gzip", Data: packed(t, images.Gzip, images.File{Name: "x", Data: make([]byte, 9000)})[:60]}},
		"an archive of too many things": {tarred(images.File{Name: strings.Repeat("d/", 200) + "x"})},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := image.Open(t.Context(), image.Options{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Limits: entry.Limits{Entries: 100}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ref, _ := put(t, reg, "1", images.Artifact{Type: "a/b", Blobs: blobs})
			if i, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err == nil {
				t.Fatalf("pulled %v", i)
			} else if errs.Of(err) == "" {
				t.Errorf("an error without a kind: %v", err)
			}
			if left, err := os.ReadDir(filepath.Join(dir, "root", "artifacts")); err != nil || len(left) != 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
			nothing(t, s)
		})
	}
}

func TestADamagedArtifactIsFoundAndPulledAgain(t *testing.T) {
	damagedArtifact(t, func(s *image.Service, known ...string) ([]image.Problem, error) {
		return s.Check(t.Context(), true, func() []string { return known })
	})
}

func TestVerifyFindsADamagedArtifact(t *testing.T) {
	damagedArtifact(t, func(s *image.Service, _ ...string) ([]image.Problem, error) { return s.Verify(t.Context(), true, nil) })
}

func damagedArtifact(t *testing.T, look func(s *image.Service, known ...string) ([]image.Problem, error)) {
	t.Helper()
	reg := serve(t, nil)
	for name, path := range map[string]string{"file": "weights/1.bin", "unpacked file": "docs/a"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			ref, _ := put(t, reg, "1", model(t, "x"))
			i := pulled(t, s, ref)
			want := content(t, volume(t, s, "c", ref, path))
			trees, err := filepath.Glob(filepath.Join(dir, "root", "artifacts", "sha256-*", "fs"))
			if err != nil || len(trees) != 1 {
				t.Fatal(trees, err)
			}
			if problems, err := look(s, "c"); err != nil || len(problems) != 0 {
				t.Fatalf("before: %v, %v", problems, err)
			}
			if err := os.WriteFile(filepath.Join(trees[0], path), []byte("damage"), 0o600); err != nil {
				t.Fatal(err)
			}
			problems, err := look(s, "c")
			if err != nil || len(problems) == 0 || !problems[0].Repaired {
				t.Fatalf("damaged: %v, %v", problems, err)
			}
			if again := pulled(t, s, ref); again.ID != i.ID {
				t.Errorf("pulled again: %s", again.ID)
			}
			if got := content(t, volume(t, s, "d", ref, path)); got != want {
				t.Errorf("mended: %q", got)
			}
			unmount(t, s, "c")
			if problems, err := look(s, "d"); err != nil || len(problems) > 1 {
				t.Errorf("mended: %v, %v", problems, err) // the old tree
			}
		})
	}
}

func TestAnArtifactSurvivesReopeningAndAnArchive(t *testing.T) {
	dir := t.TempDir()
	reg := serve(t, nil)
	ref, b := put(t, reg, "1", model(t, "x"))
	s := open(t, dir)
	want := pulled(t, s, ref)
	var archive strings.Builder
	if err := s.Save(t.Context(), []string{ref}, image.SaveOptions{}, &archive); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), []string{ref}, image.SaveOptions{Format: image.FormatDocker}, &strings.Builder{}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("docker archive: %v", err)
	}
	reopened := open(t, dir)
	got, err := reopened.Get(ref)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("reopened: %v %s", err, diff)
	}
	other := service(t)
	all, err := other.Load(t.Context(), strings.NewReader(archive.String()))
	if err != nil || len(all) != 1 || all[0].ID != b.Root.Digest {
		t.Fatalf("loaded %v, %v", all, err)
	}
	if text := content(t, volume(t, other, "c", all[0].ID.String(), "docs/b")); text != "a" {
		t.Errorf("loaded: %q", text)
	}
}
