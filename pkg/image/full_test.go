package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// disk mounts a file system of some size at dir/root, for the test only.
func disk(t *testing.T, dir string, kib int) {
	t.Helper()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("berth-test", root, "tmpfs", 0, fmt.Sprintf("size=%dk,mode=700", kib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// resize gives the file system another size.
func resize(t *testing.T, dir string, kib int) {
	t.Helper()
	if err := unix.Mount("berth-test", filepath.Join(dir, "root"), "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dk", kib)); err != nil {
		t.Fatal(err)
	}
}

func usedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Join(dir, "root"), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// bulky takes about a megabyte in two layers, and as much packed.
func bulky() images.Image {
	i := sample("bulky")
	noise := make([]byte, 300<<10)
	for n := range noise {
		noise[n] = byte(n * n >> 7 * (n >> 3))
	}
	i.Layers[0].Files = append(i.Layers[0].Files, images.File{Name: "srv/large", Data: noise})
	for n := range 20 {
		i.Layers[1].Files = append(i.Layers[1].Files, images.File{Name: fmt.Sprintf("srv/%d", n), Data: noise[n*1000 : n*1000+10_000]})
	}
	return i
}

// fullRE is what an error of a full disk tells.
var fullRE = regexp.MustCompile(`no space left on device: /\S+/root\S* needs (\d+ bytes more, and \d+ are free|more than the \d+ bytes that are free)`)

// TestAFullDiskIsToldOfAndGivenBack fills the disk at every write of a pull and a
// load, one after the other.
func TestAFullDiskIsToldOfAndGivenBack(t *testing.T) { forms(t, fullDiskIsToldOf) }

func fullDiskIsToldOf(t *testing.T, f form) {
	reg := serve(t, nil)
	b := build(t, bulky())
	ref := reg.Put("app", "v1", b)
	var archive bytes.Buffer
	if err := images.Archive(&archive, "app:v1", bulky()); err != nil {
		t.Fatal(err)
	}
	add := map[string]func(s *image.Service) error{
		"pull": func(s *image.Service) error {
			_, err := s.Pull(t.Context(), image.PullRequest{Ref: ref})
			return err
		},
		"load": func(s *image.Service) error {
			_, err := s.Load(t.Context(), io.Reader(bytes.NewReader(archive.Bytes())))
			return err
		},
	}
	for how, fill := range add {
		failed, succeeded := 0, 0
		for kib := 24; kib < 2600; kib += 4 + kib/16 {
			t.Run(fmt.Sprintf("%s/%d", how, kib), func(t *testing.T) {
				dir := t.TempDir()
				disk(t, dir, kib)
				s := f.open(t, dir)
				before := usedBytes(t, dir)
				err := fill(s)
				if err == nil {
					succeeded++
					return
				}
				failed++
				if !errors.Is(err, errs.Exhausted) || !fullRE.MatchString(err.Error()) {
					t.Errorf("the disk is full: %v", err)
				}
				if after := usedBytes(t, dir); after > before+16<<10 { // directories keep their blocks, and marks
					t.Errorf("of %d KiB %d are in use after, %d before", kib, after>>10, before>>10)
				}
				nothing(t, s)
				resize(t, dir, 8<<10)
				if err := fill(s); err != nil {
					t.Errorf("with room enough: %v", err)
				}
				if problems, err := s.Verify(t.Context(), false, nil); err != nil || len(problems) != 0 {
					t.Errorf("with room enough: %v, %v", problems, err)
				}
			})
		}
		if failed < 20 || succeeded < 2 {
			t.Errorf("%s: %d failed, %d succeeded: this has not filled the disk at every write", how, failed, succeeded)
		}
	}
}

// TestAFullDiskKeepsNothingFromStartingAndRemoving fills the disk to its last
// byte, and its last inode.
func TestAFullDiskKeepsNothingFromStartingAndRemoving(t *testing.T) { forms(t, fullDiskKeepsNothing) }

func fullDiskKeepsNothing(t *testing.T, form form) {
	dir := t.TempDir()
	disk(t, dir, 8<<10)
	first := form.open(t, dir)
	loaded(t, first, "app:v1", bulky())
	other := loaded(t, first, "other:v1", sample("other"))
	mount(t, first, image.MountRequest{ContainerID: "c", Image: other.ID})
	f, err := os.Create(filepath.Join(dir, "root/ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir+"/root", &st); err != nil || st.Bfree != 0 {
		t.Fatalf("%d blocks are free, %v", st.Bfree, err)
	}
	if err := unix.Mount("berth-test", dir+"/root", "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("nr_inodes=%d", st.Files-st.Ffree)); err != nil {
		t.Fatal(err)
	}
	s := form.open(t, dir)
	if len(s.List()) != 2 {
		t.Errorf("listed: %v", s.List())
	}
	if _, err := s.Mount(t.Context(), image.MountRequest{ContainerID: "more", Image: other.ID}); !errors.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "no free inode") {
		t.Errorf("mounted on a full disk: %v", err)
	}
	if err := s.Remove(t.Context(), "app:v1"); err != nil {
		t.Fatal(err)
	}
	testutil.Await(t, 10*time.Second, func() error { // files go after their names
		if err := unix.Statfs(dir+"/root", &st); err != nil || st.Bfree*uint64(st.Bsize) < 400<<10 {
			return fmt.Errorf("%d blocks are free, %w", st.Bfree, err)
		}
		return nil
	})
	if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
