package checkpoint_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/errs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a checkpoint of one container.
func write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	images := filepath.Join(checkpoint.Dir(dir, 0), checkpoint.Images)
	must(t, os.MkdirAll(images, 0o700))
	must(t, os.WriteFile(filepath.Join(images, "pages-1.img"), []byte("pages"), 0o600))
	must(t, os.WriteFile(filepath.Join(checkpoint.Dir(dir, 0), checkpoint.Changes), []byte("changes"), 0o600))
	must(t, checkpoint.Finish(dir, []checkpoint.Container{{Name: "a", Args: []string{"x"}, Env: [][]byte{{0xff}}}}))
	return dir
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := write(t)
	d, err := checkpoint.Open(dir)
	must(t, err)
	defer d.Close()
	if !slices.Equal(d.Names(), []string{"a"}) {
		t.Errorf("names %q", d.Names())
	}
	p, err := d.Container("a")
	must(t, err)
	to := t.TempDir()
	must(t, p.CopyImages(t.Context(), to))
	if data, err := os.ReadFile(filepath.Join(to, checkpoint.Images, "pages-1.img")); err != nil || string(data) != "pages" {
		t.Errorf("copied %q, %v", data, err)
	}
	f, err := p.OpenChanges()
	must(t, err)
	defer f.Close()
	if data, err := io.ReadAll(f); err != nil || string(data) != "changes" {
		t.Errorf("changes %q, %v", data, err)
	}
	if _, err := d.Container("b"); !errors.Is(err, errs.Invalid) {
		t.Errorf("another container: %v", err)
	}
	must(t, p.Was.Check(checkpoint.Container{Name: "a", Args: []string{"x"}, Env: [][]byte{{0xff}}}))
	for what, other := range map[string]checkpoint.Container{
		"args": {Name: "a", Args: []string{"y"}, Env: [][]byte{{0xff}}}, "env": {Name: "a", Args: []string{"x"}, Env: [][]byte{{0xfe}}},
		"image": {Name: "a", Args: []string{"x"}, Env: [][]byte{{0xff}}, Image: "i"},
	} {
		if err := p.Was.Check(other); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "its "+what+" are not") {
			t.Errorf("other %s: %v", what, err)
		}
	}
}

func TestHostileManifestsAreRefused(t *testing.T) {
	arch := `"architecture":"` + runtime.GOARCH + `"`
	for content, want := range map[string]string{
		"":   "EOF",
		"[]": "cannot unmarshal",
		`{"version":2,` + arch + `,"containers":[{"name":"a"}]}`:                                              "version 2",
		`{"version":1,"architecture":"vax","containers":[{"name":"a"}]}`:                                      "vax",
		`{"version":1,` + arch + `,"containers":[]}`:                                                          "0 containers",
		`{"version":1,` + arch + `,"containers":[{"name":"a"},{"name":"a"}]}`:                                 "twice",
		`{"version":1,` + arch + `,"containers":[{"name":""}]}`:                                               "empty",
		`{"version":1,` + arch + `,"annotations":{},"containers":[]}`:                                         "unknown field",
		`{"version":1,` + arch + `,"containers":[{"name":"a","devices":[]}]}`:                                 "unknown field",
		`{"version":1,` + arch + `,"containers":[{"name":"a"}]} {"version":1}`:                                "after its end",
		`{"version":1,"architecture":"` + strings.Repeat("x", 8<<20) + `"}`:                                   "larger than",
		`{"version":1,` + arch + `,"containers":[` + strings.Repeat(`{"name":"a"},`, 1001) + `{"name":"b"}]}`: "1002 containers",
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(content), 0o600))
		if _, err := checkpoint.Open(dir); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v", content, err)
		}
	}
	for _, dir := range []string{"relative", "/nowhere/at/all", t.TempDir()} {
		if _, err := checkpoint.Open(dir); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestNoLinkIsFollowed puts a link, a FIFO and a directory in the place of each part.
func TestNoLinkIsFollowed(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.Mkdir(secret, 0o700))
	must(t, os.WriteFile(filepath.Join(secret, "pages-1.img"), []byte("secret"), 0o600))
	place := map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"file link": func(path string) error { return os.Symlink(filepath.Join(secret, "pages-1.img"), path) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o700) },
	}
	for _, name := range []string{"manifest.json", "0", "0/checkpoint", "0/checkpoint/pages-1.img", "0/rootfs-diff.tar"} {
		for kind, put := range place {
			dir := write(t)
			must(t, os.RemoveAll(filepath.Join(dir, name)))
			must(t, put(filepath.Join(dir, name)))
			if err := use(t, dir); !errors.Is(err, errs.Invalid) {
				t.Errorf("%s is a %s: %v", name, kind, err)
			}
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(write(t), link))
	if err := use(t, link); !errors.Is(err, errs.Invalid) {
		t.Errorf("the checkpoint is a link: %v", err)
	}
}

func use(t *testing.T, dir string) error {
	d, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := d.Container("a")
	must(t, err)
	f, err := p.OpenChanges()
	if err != nil {
		return err
	}
	f.Close()
	return p.CopyImages(t.Context(), t.TempDir())
}

func TestOnlyEmptyDirectoriesAreWrittenTo(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(full, "x/y"), 0o700))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(empty, link))
	must(t, checkpoint.Empty(empty))
	for _, dir := range []string{full, link, "", "relative", "/nowhere/at/all", "/etc/passwd"} {
		if err := checkpoint.Empty(dir); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	must(t, os.Symlink(write(t), filepath.Join(full, "z")))
	must(t, checkpoint.Clear(full))
	must(t, checkpoint.Empty(full))
}

func TestAnArchiveHasTheFilesAndReplacesAtOnce(t *testing.T) {
	dir := checkpoint.Dir(write(t), 0)
	to := filepath.Join(t.TempDir(), "c.tar")
	must(t, os.WriteFile(to, []byte("old"), 0o600))
	must(t, checkpoint.CheckLocation(to))
	must(t, checkpoint.Archive(t.Context(), dir, to))
	f, err := os.Open(to)
	must(t, err)
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names = append(names, h.Name)
	}
	if want := []string{"checkpoint/", "checkpoint/pages-1.img", "rootfs-diff.tar"}; !slices.Equal(names, want) {
		t.Errorf("archive has %q", names)
	}
	if err := checkpoint.Archive(t.Context(), "/nowhere/at/all", to); err == nil {
		t.Error("an archive of nothing")
	}
	if left, _ := os.ReadDir(filepath.Dir(to)); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	for _, bad := range []string{"", "c.tar", "/nowhere/at/all/c.tar", filepath.Dir(to), "/tmp/../x.tar", "/etc/passwd/c.tar"} {
		if err := checkpoint.CheckLocation(bad); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
