package erofs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/test/testutil"
)

// files is what an image is mounted from.
type files struct {
	image   string
	devices []string
}

// compose makes an image of streams, in dir.
func compose(dir string, streams ...[]byte) (files, error) {
	var indexes [][]byte
	name := func(d Device) string { return filepath.Join(dir, fmt.Sprint(d.Layer, d.Spill)) }
	for n, s := range streams {
		x, err := tree.Scan(bytes.NewReader(s), entry.Limits{Bytes: 4 << 30})
		if err != nil {
			return files{}, err
		}
		indexes = append(indexes, x.Encode())
		if err := os.WriteFile(name(Device{Layer: n}), s, 0o600); err != nil {
			return files{}, err
		}
		spill, err := os.Create(name(Device{Layer: n, Spill: true}))
		if err != nil {
			return files{}, err
		}
		if err := errors.Join(x.Spill(spill, bytes.NewReader(s)), spill.Truncate(x.Spilled()), spill.Close()); err != nil {
			return files{}, err
		}
	}
	root, err := tree.Compose(len(streams), func(n int) ([]byte, error) { return indexes[n], nil })
	if err != nil {
		return files{}, err
	}
	out := files{image: filepath.Join(dir, "image")}
	f, err := os.Create(out.image)
	if err != nil {
		return files{}, err
	}
	defer f.Close()
	devices, err := Write(f, root, [16]byte{1}, func(d Device) (int64, error) {
		info, err := os.Stat(name(d))
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	})
	for _, d := range devices {
		out.devices = append(out.devices, name(d))
	}
	return out, err
}

func (f files) mount(t testing.TB) string {
	t.Helper()
	testutil.Root(t)
	at := t.TempDir()
	if err := Mount(f.image, f.devices, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

func mounted(t testing.TB, streams ...[]byte) string {
	t.Helper()
	f, err := compose(t.TempDir(), streams...)
	if err != nil {
		t.Fatal(err)
	}
	return f.mount(t)
}

func TestDirectoriesOfAnySizeListAndFindEveryName(t *testing.T) {
	for _, n := range []int{0, 1, 20, 40, 41, 500, 3000} {
		items := []entrytest.Item{{Name: "d/", Mode: 0o755}}
		want := []string{}
		for i := range n {
			name := fmt.Sprintf("%s-%05d", strings.Repeat("n", i%200), i)
			want = append(want, name)
			items = append(items, entrytest.Item{Name: "d/" + name, Data: name, Mode: 0o600})
		}
		dir := filepath.Join(mounted(t, entrytest.Stream(t, items...)), "d")
		names, err := os.ReadDir(dir)
		if err != nil || len(names) != n {
			t.Fatalf("%d names: %d, %v", n, len(names), err)
		}
		for _, name := range want {
			if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != name {
				t.Errorf("%s: %.60q, %v", name, data, err)
			}
		}
	}
}

func TestEveryKindOfFileShowsAsItsEntrySays(t *testing.T) {
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x05\x00\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	long := strings.Repeat("x", 3000)
	root := mounted(t, entrytest.Stream(t,
		entrytest.Item{Name: "big-owner", Data: "o", UID: 1 << 31, GID: 70000, Mode: 0o4711},
		entrytest.Item{Name: "short", Kind: tar.TypeSymlink, Link: "target"},
		entrytest.Item{Name: "long", Kind: tar.TypeSymlink, Link: long},
		entrytest.Item{Name: "xattrs", Data: "d", Xattrs: map[string]string{"user.a": "1", "user.big": long, "system.posix_acl_access": acl}, Mode: 0o640},
		entrytest.Item{Name: "again", Kind: tar.TypeLink, Link: "xattrs"},
		entrytest.Item{Name: "char", Kind: tar.TypeChar, Major: 300, Minor: 70000, Mode: 0o666},
		entrytest.Item{Name: "block", Kind: tar.TypeBlock, Major: 8, Minor: 1, Mode: 0o660},
		entrytest.Item{Name: "fifo", Kind: tar.TypeFifo, Mode: 0o600, GID: 3},
	))
	for name, want := range map[string]string{
		"big-owner": "104711 2147483648:70000 1 0", "short": "120777 0:0 1 0", "xattrs": "100640 0:0 2 0", "again": "100640 0:0 2 0",
		"char": "20666 0:0 1 " + fmt.Sprint(unix.Mkdev(300, 70000)), "block": "60660 0:0 1 " + fmt.Sprint(unix.Mkdev(8, 1)), "fifo": "10600 0:3 1 0",
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprintf("%o %d:%d %d %d", st.Mode, st.Uid, st.Gid, st.Nlink, st.Rdev); got != want || st.Mtim.Sec != 1_500_000_000 {
			t.Errorf("%s: %s, want %s; time %d", name, got, want, st.Mtim.Sec)
		}
	}
	for name, want := range map[string]string{"short": "target", "long": long} {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	value := make([]byte, 4096)
	masked := strings.Replace(acl, "\x10\x00\x07", "\x10\x00\x04", 1)   // the mode's group bits
	masked = strings.Replace(masked, "\x20\x00\x04", "\x20\x00\x00", 1) // and those of others
	for key, want := range map[string]string{"user.a": "1", "user.big": long, "system.posix_acl_access": masked} {
		n, err := unix.Getxattr(filepath.Join(root, "again"), key, value)
		if err != nil || string(value[:n]) != want {
			t.Errorf("%s: %q, %v", key, value[:max(n, 0)], err)
		}
	}
}

func TestNamesNeedNotBeText(t *testing.T) {
	root := mounted(t, entrytest.GNU("a\xff\x01\n", "not text"))
	if data, err := os.ReadFile(filepath.Join(root, "a\xff\x01\n")); err != nil || string(data) != "not text" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestTheSameLayersMakeTheSameImage(t *testing.T) {
	low := entrytest.Stream(t, entrytest.Item{Name: "a/b", Data: "1"}, entrytest.Item{Name: "c", Data: "2", UID: 1}, entrytest.Item{Name: "d", Kind: tar.TypeLink, Link: "c"})
	high := entrytest.Stream(t, entrytest.Item{Name: "a/.wh.b"}, entrytest.Item{Name: "a/e", Data: "3"})
	var images [][]byte
	for range 2 {
		f, err := compose(t.TempDir(), low, high)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(f.image)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("images differ")
	}
}

func TestSparseFilesShowTheirPieces(t *testing.T) {
	for name, c := range map[string]struct {
		size   int64
		pieces []tree.Extent
	}{
		"whole blocks":      {1 << 30, []tree.Extent{{Offset: 0, Size: 4096}, {Offset: 1 << 20, Size: 8192}, {Offset: 1<<30 - 512, Size: 512}}},
		"end of the file":   {1<<20 + 100, []tree.Extent{{Offset: 1 << 20, Size: 100}}},
		"parts of blocks":   {1 << 22, []tree.Extent{{Offset: 100, Size: 1000}, {Offset: 5000, Size: 3}, {Offset: 1<<22 - 1, Size: 1}}},
		"many small chunks": {1 << 28, []tree.Extent{{Offset: 512, Size: 512}, {Offset: 1 << 27, Size: 512}}},
		"nothing":           {1 << 31, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[int64]byte{}
			body := []byte(nil)
			sparseMap := fmt.Sprintf("%d\n", len(c.pieces))
			for n, p := range c.pieces {
				sparseMap += fmt.Sprintf("%d\n%d\n", p.Offset, p.Size)
				body = append(body, bytes.Repeat([]byte{byte('a' + n)}, int(p.Size))...)
				want[p.Offset], want[p.Offset+p.Size-1] = byte('a'+n), byte('a'+n)
			}
			root := mounted(t, entrytest.SparseStream(t, c.size, sparseMap, body))
			f, err := os.Open(filepath.Join(root, "big"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if info, err := f.Stat(); err != nil || info.Size() != c.size {
				t.Fatalf("size %v, %v", info, err)
			}
			for at, b := range want {
				got := make([]byte, 1)
				if _, err := f.ReadAt(got, at); err != nil || got[0] != b {
					t.Errorf("at %d: %q, %v", at, got, err)
				}
			}
			for _, p := range c.pieces {
				for _, at := range []int64{p.Offset - 1, p.Offset + p.Size} {
					if _, ok := want[at]; ok || at < 0 || at >= c.size {
						continue
					}
					got := make([]byte, 1)
					if _, err := f.ReadAt(got, at); err != nil || got[0] != 0 {
						t.Errorf("hole at %d: %q, %v", at, got, err)
					}
				}
			}
		})
	}
}

func TestLoopDevicesShowTheSame(t *testing.T) {
	testutil.Root(t)
	f, err := compose(t.TempDir(), entrytest.Stream(t, entrytest.Item{Name: "a", Data: "low"}), entrytest.Stream(t, entrytest.Item{Name: "b", Data: strings.Repeat("high", 1000)}))
	if err != nil {
		t.Fatal(err)
	}
	var open []*os.File
	for _, p := range append([]string{f.image}, f.devices...) {
		file, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		open = append(open, file)
	}
	at := t.TempDir()
	if err := mountLoop(open, at); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(filepath.Join(at, "a"))
	b, errB := os.ReadFile(filepath.Join(at, "b"))
	if err := errors.Join(errA, errB, unix.Unmount(at, 0)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"low", strings.Repeat("high", 1000)}, []string{string(a), string(b)}); diff != "" {
		t.Error(diff)
	}
}

// FuzzImage holds that no streams make a panic, that what is written mounts, and
// that every file in it can be read.
func FuzzImage(f *testing.F) {
	base := entrytest.Stream(f, entrytest.Item{Name: "a/", Mode: 0o755}, entrytest.Item{Name: "a/b", Data: "x"}, entrytest.Item{Name: "c", Kind: tar.TypeSymlink, Link: "../a"})
	f.Add(base, entrytest.Stream(f, entrytest.Item{Name: "c/.wh.b"}, entrytest.Item{Name: "c/.wh..wh..opq"}, entrytest.Item{Name: "h", Kind: tar.TypeLink, Link: "a/b"}))
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "dev/null", Kind: tar.TypeChar, Major: 1, Minor: 3}, entrytest.Item{Name: "x", Data: "x", Xattrs: map[string]string{"user.a": "b"}}), base)
	f.Add(entrytest.Sparse(f, 1<<20), entrytest.GNU("\xff", "x"))
	f.Fuzz(func(t *testing.T, low, high []byte) {
		dir := t.TempDir()
		made, err := compose(dir, low, high)
		if err != nil {
			return
		}
		testutil.Root(t)
		at := filepath.Join(dir, "mnt")
		if err := errors.Join(os.Mkdir(at, 0o700), Mount(made.image, made.devices, at)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(at, 0); err != nil {
				t.Error(err)
			}
		}()
		err = filepath.WalkDir(at, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			file, err := os.Open(p)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = io.Copy(io.Discard, io.LimitReader(file, 1<<20))
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
