package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// makers make file systems that count by project.
var makers = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"},
	"xfs":  {"mkfs.xfs", "-q"},
}

// onEach runs f with a directory on a file system of each kind that counts by
// project. Kernels of small machines often have none.
func onEach(t *testing.T, f func(t *testing.T, dir string)) {
	testutil.Root(t)
	for kind, maker := range makers {
		t.Run(kind, func(t *testing.T) {
			image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
			if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(maker[0], append(maker[1:], image)...).CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, out)
			}
			if out, err := exec.Command("mount", "-o", "loop,prjquota", image, dir).CombinedOutput(); err != nil {
				t.Skipf("this kernel counts no projects on %s: %v: %s", kind, err, out)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Errorf("unmount %s: %v", dir, err)
				}
			})
			f(t, dir)
		})
	}
}

// write makes a file of n MiB.
func write(t *testing.T, path string, n int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, n<<20), 0o600); err != nil {
		t.Fatal(err)
	}
}

// usage asks anew.
func usage(t *testing.T, r *Roots, id string) Usage {
	t.Helper()
	a := r.usage.get(id)
	a.at = a.at.Add(-2 * usageMaxAge)
	r.usage.put(id, a)
	u, err := r.Usage(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheFileSystemCountsWhatAContainerWrites(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		s, l := layered(t)
		r, err := Open(s, filepath.Join(dir, "writable"), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		root := Root{ID: "c", Layers: []digest.Digest{l}}
		at, err := r.Mount(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, inodes, bytes uint64) {
			t.Helper()
			testutil.Await(t, 10*time.Second, func() error { // XFS removes in the background
				if u := usage(t, r, "c"); u.Inodes != inodes || u.Bytes < bytes || u.Bytes > bytes+1<<20 {
					return fmt.Errorf("%s: %+v, want %d inodes, %d bytes", what, u, inodes, bytes)
				}
				return nil
			})
			if a := r.usage.get("c"); a.deceived || a.looked.IsZero() {
				t.Errorf("%s: %+v", what, a)
			}
		}
		check("at first", 0, 0)
		project := r.projects.of(filepath.Join(dir, "writable", "c"))
		if project < firstProject {
			t.Fatalf("project %d", project)
		}
		if err := os.MkdirAll(filepath.Join(at, "d/e"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(at, "d/e/big"), 20)
		check("after a file in directories", 3, 20<<20)
		for _, err := range []error{
			os.Link(filepath.Join(at, "d/e/big"), filepath.Join(at, "same")), os.Rename(filepath.Join(at, "d"), filepath.Join(at, "moved")),
			os.Chmod(filepath.Join(at, "a"), 0o600), // of the layer: it is copied
			os.Rename(filepath.Join(at, "a"), filepath.Join(at, "moved/b")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		check("after links, moves and a copy from below", 5, 20<<20) // and a whiteout
		if err := errors.Join(os.RemoveAll(filepath.Join(at, "moved")), os.Remove(filepath.Join(at, "same"))); err != nil {
			t.Fatal(err)
		}
		check("after a removal", 1, 0)
		if err := r.Unmount(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestProjectsAreTheContainersOwnAndUsedAgain(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		writable := filepath.Join(dir, "writable")
		open := func() *Roots {
			r, err := Open(store(t), writable, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := open()
		var ids []uint32
		for _, id := range []string{"a", "b", "c"} {
			if _, err := r.prepare(t.Context(), Root{ID: id}); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(writable, id, upperDir, "f"), len(ids)+1)
			ids = append(ids, r.projects.of(filepath.Join(writable, id)))
		}
		for i, id := range []string{"a", "b", "c"} {
			if u := usage(t, r, id); u.Inodes != 1 || u.Bytes>>20 != uint64(i+1) {
				t.Errorf("%s: %+v", id, u)
			}
		}
		if slices.Sort(ids); len(slices.Compact(ids)) != 3 || ids[0] < firstProject || ids[2] > lastProject {
			t.Errorf("projects %v", ids)
		}
		gone := r.projects.of(filepath.Join(writable, "b"))
		if err := errors.Join(r.Unmount(t.Context(), "b"), r.Close()); err != nil { // Close waits for the removal
			t.Fatal(err)
		}
		if filepath.Base(t.Name()) == "xfs" { // which keeps the records of those that are gone
			r = open()
			defer r.Close()
			if !slices.Contains(r.projects.free, gone) || slices.Contains(r.projects.free, r.projects.of(filepath.Join(writable, "a"))) {
				t.Errorf("free are %v, of which one had %d", r.projects.free, gone)
			}
		}
	})
}

func TestAContainerThatLeavesItsProjectIsFoundOut(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		writable := filepath.Join(dir, "writable")
		r, err := Open(store(t), writable, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		leave := func(path string) {
			t.Helper()
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := (&attributes{}).ioctl(f, setAttributes); err != nil { // as chattr -p 0 does
				t.Fatal(err)
			}
		}
		mappings := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		for _, root := range []Root{{ID: "below"}, {ID: "top"}, {ID: "mapped", UIDMappings: mappings, GIDMappings: mappings}} {
			if _, err := r.prepare(t.Context(), root); err != nil {
				t.Fatal(err)
			}
			upper := filepath.Join(writable, root.ID, upperDir)
			if err := os.Mkdir(filepath.Join(upper, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if root.ID == "top" {
				leave(upper)
			} else {
				leave(filepath.Join(upper, "d"))
			}
			write(t, filepath.Join(upper, "d/f"), 10)
			if root.ID == "top" {
				write(t, filepath.Join(upper, "f"), 10)
			}
		}
		for id, want := range map[string]uint64{"below": 10, "top": 20, "mapped": 0} { // which the kernel lets none with a user namespace do
			for range 2 {
				if u := usage(t, r, id); u.Bytes>>20 != want {
					t.Errorf("%s: %+v", id, u)
				}
			}
		}
	})
}

func TestWhatIsAnAdministratorsProjectStaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := (&attributes{project: 7, flags: inherit}).ioctl(f, setAttributes); err != nil {
			t.Fatal(err)
		}
		r, err := Open(store(t), filepath.Join(dir, "writable"), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.prepare(t.Context(), Root{ID: "c"}); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "writable/c", upperDir, "f"), 3)
		if u := usage(t, r, "c"); u.Bytes>>20 != 3 || r.projects.dir != nil {
			t.Errorf("%+v", u)
		}
		if err := r.Unmount(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	})
}
