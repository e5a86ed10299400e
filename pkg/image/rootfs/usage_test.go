package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// written returns root file systems, with the writable directory of a container.
func written(t *testing.T, id string) (r *Roots, upper string) {
	t.Helper()
	testutil.Root(t)
	dir := t.TempDir()
	r, err := Open(store(t), filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // nil always
	upper = filepath.Join(dir, "writable", id, upperDir)
	if err := os.MkdirAll(upper, 0o700); err != nil {
		t.Fatal(err)
	}
	return r, upper
}

func TestUsageAddsUpWhatIsThereAndFollowsNoLink(t *testing.T) {
	r, upper := written(t, "c")
	for n := range 3 {
		d := filepath.Join(upper, fmt.Sprint("d", n))
		if err := errors.Join(os.Mkdir(d, 0o700), os.WriteFile(filepath.Join(d, "f"), make([]byte, 8192), 0o600), os.Symlink("/", filepath.Join(d, "out"))); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := r.Usage(t.Context(), "c"); err != nil || u.Inodes != 9 || u.Bytes < 3*8192 || u.Bytes > 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestAFileWithManyNamesTakesItsSpaceOnce(t *testing.T) {
	r, upper := written(t, "c")
	if err := os.WriteFile(filepath.Join(upper, "f"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		if err := os.Link(filepath.Join(upper, "f"), filepath.Join(upper, fmt.Sprint("l", n))); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := r.Usage(t.Context(), "c"); err != nil || u.Inodes != 1 || u.Bytes < 1<<20 || u.Bytes > 2<<20 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestUsageOfDeepDirectoriesIsALowerBound has a tree that no path reaches the
// bottom of.
func TestUsageOfDeepDirectoriesIsALowerBound(t *testing.T) {
	r, upper := written(t, "c")
	at, err := unix.Open(upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if err := unix.Mkdirat(at, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "d", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = next
	}
	if err := unix.Close(at); err != nil {
		t.Fatal(err)
	}
	if u, err := r.Usage(t.Context(), "c"); err != nil || u.Inodes != maxDepth {
		t.Errorf("%+v, %v", u, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.usage.forget("c")
	if _, err := r.Usage(ended, "c"); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}

func BenchmarkWalk(b *testing.B) {
	for _, files := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			r := &Roots{writable: b.TempDir()}
			for i := range files {
				dir := filepath.Join(r.writable, "c", upperDir, fmt.Sprint(i/100))
				if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o600)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := r.walk(b.Context(), "c"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
