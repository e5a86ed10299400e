package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/test/testutil"
)

// lowest returns the type of the file system that a mount's layers are on, which
// is erofs unless they are directories.
func lowest(t *testing.T, path string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if !strings.Contains(line, " "+path+" ") {
			continue
		}
		if strings.Contains(line, "/state/images/") {
			return "erofs"
		}
		if strings.Contains(line, "/root/layers/") || strings.Contains(line, "/.ingest-") {
			return "directory"
		}
		return line
	}
	return fmt.Sprintf("%s is not mounted", path)
}

// plain has directories for one handler's containers.
func plain(dir string) image.Options {
	return image.Options{Root: dir + "/root", State: dir + "/state", LayerBackend: layer.EROFS, Directories: map[string]bool{"plain": true}}
}

// trees returns how many directories there are below dir.
func trees(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "root/layers/*/layer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestAHandlersContainersGetDirectories(t *testing.T) {
	testutil.Root(t)
	reg := serve(t, nil)
	ref := reg.Put("app", "v1", build(t, sample("new")))
	dir := t.TempDir()
	s := openWith(t, dir, plain(dir))
	i := pulled(t, s, ref)
	if n := trees(t, dir); n != 0 {
		t.Fatalf("%d directories before anybody needs them", n)
	}
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref, Handler: "plain"}); err != nil {
		t.Fatal(err)
	}
	made := trees(t, dir)
	if made < 2 {
		t.Errorf("%d directories after a pull for the handler", made)
	}
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	for id, c := range map[string]struct {
		handler, want string
		maps          []specs.LinuxIDMapping
	}{"a": {"", "erofs", nil}, "b": {"plain", "directory", nil}, "c": {"other", "erofs", nil}, "d": {"plain", "directory", maps}} {
		path := mount(t, s, image.MountRequest{ContainerID: id, Image: i.ID, Handler: c.handler, UIDMappings: c.maps, GIDMappings: c.maps})
		if got := lowest(t, path); c.maps == nil && got != c.want {
			t.Errorf("container of %q: %s, want %s", c.handler, got, c.want)
		}
		if _, err := os.Stat(path + "/etc/gone"); err == nil || content(t, path, "etc/motd") != "new" {
			t.Errorf("container of %q shows something else: %v", c.handler, err)
		}
		v, err := s.MountVolumes(t.Context(), image.VolumesRequest{ContainerID: id, Handler: c.handler, Sources: []image.VolumeSource{{Ref: ref, Path: "/v"}}})
		if err != nil || content(t, v[0].Path, "etc/motd") != "new" || lowest(t, v[0].Path) != c.want {
			t.Errorf("volume of %q: %v, %v", c.handler, v, err)
		}
	}
	if n := trees(t, dir); n != made {
		t.Errorf("%d directories for containers, %d of the pull", n, made)
	}
}

func TestAHandlersDirectoriesGoWithTheImage(t *testing.T) {
	testutil.Root(t)
	reg := serve(t, nil)
	ref := reg.Put("app", "v1", build(t, sample("new")))
	dir := t.TempDir()
	s, err := image.Open(t.Context(), plain(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, handler := range []string{"", "plain"} {
		if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref, Handler: handler}); err != nil {
			t.Fatal(err)
		}
	}
	made := trees(t, dir)
	if err := errors.Join(s.Release(t.Context(), ref, ""), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openWith(t, dir, plain(dir))
	i, err := s.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Mount(t.Context(), image.MountRequest{ContainerID: "e", Image: i.ID, Handler: "plain", Use: "plain"})
	if err != nil || lowest(t, path) != "directory" || trees(t, dir) != made {
		t.Errorf("after a restart: %s, %d directories of %d, %v", lowest(t, path), trees(t, dir), made, err)
	}
	unmount(t, s, "e")
	if err := s.Release(t.Context(), ref, "plain"); err != nil {
		t.Fatal(err)
	}
	nothing(t, s)
}

func TestTheFirstContainerOfAHandlerMakesItsDirectories(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	s := openWith(t, dir, plain(dir))
	i := loaded(t, s, "app:v1", sample("new"))
	path := mount(t, s, image.MountRequest{ContainerID: "a", Image: i.ID, Handler: "plain"})
	if got := lowest(t, path); got != "directory" || content(t, path, "etc/motd") != "new" {
		t.Errorf("got %s", got)
	}
	if got := mount(t, s, image.MountRequest{ContainerID: "b", Image: i.ID}); lowest(t, got) != "erofs" {
		t.Errorf("the other: %s", lowest(t, got))
	}
}

func TestAnImageStaysUntilNoHandlerNeedsIt(t *testing.T) {
	reg := serve(t, nil)
	ref := reg.Put("app", "v1", build(t, sample("x")))
	s := service(t)
	for _, handler := range []string{"crun", "", "crun", "runc"} {
		if i, err := s.Pull(t.Context(), image.PullRequest{Ref: ref, Handler: handler}); err != nil || !slices.Contains(i.Handlers, handler) {
			t.Fatalf("%q: %v, %v", handler, i.Handlers, err)
		}
	}
	for _, handler := range []string{"runc", "", "youki", "runc"} { // the last two have no part in it
		if err := s.Release(t.Context(), ref, handler); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.List(); len(got) != 1 || !slices.Equal(got[0].Handlers, []string{"crun"}) {
		t.Fatalf("got %v", got)
	}
	if err := s.Release(t.Context(), ref, ""); err != nil { // by a person, who knows of no handlers
		t.Fatal(err)
	}
	nothing(t, s)
}
