package changes_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/changes"
	"github.com/berth-run/berth/test/testutil"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasWrittenComesBack has all that an upper directory may have.
func TestWhatWasWrittenComesBack(t *testing.T) {
	testutil.Root(t) // whiteouts are devices
	upper := filepath.Join(t.TempDir(), "upper")
	must(t, os.MkdirAll(filepath.Join(upper, "a/b"), 0o750))
	must(t, os.Chmod(upper, 0o711))
	must(t, os.WriteFile(filepath.Join(upper, "a/f"), []byte("hello"), 0o640))
	must(t, os.Link(filepath.Join(upper, "a/f"), filepath.Join(upper, "a/b/g")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(upper, "l")))
	must(t, unix.Mkfifo(filepath.Join(upper, "p"), 0o600))
	must(t, unix.Mknod(filepath.Join(upper, "gone"), unix.S_IFCHR, 0))
	must(t, unix.Chown(filepath.Join(upper, "a/f"), 12, 34))
	must(t, unix.Chmod(filepath.Join(upper, "a/f"), 0o4755))
	must(t, unix.Setxattr(filepath.Join(upper, "a/b"), "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(filepath.Join(upper, "a"), "trusted.overlay.origin", []byte("x"), 0))
	var stream bytes.Buffer
	must(t, changes.Write(t.Context(), upper, &stream))
	again := filepath.Join(t.TempDir(), "upper")
	must(t, changes.Apply(t.Context(), again, bytes.NewReader(stream.Bytes())))

	var f, g, gone, root unix.Stat_t
	must(t, unix.Lstat(filepath.Join(again, "a/f"), &f))
	must(t, unix.Lstat(filepath.Join(again, "a/b/g"), &g))
	must(t, unix.Lstat(filepath.Join(again, "gone"), &gone))
	must(t, unix.Lstat(again, &root))
	if f.Ino != g.Ino || f.Uid != 12 || f.Gid != 34 || f.Mode != unix.S_IFREG|0o4755 || root.Mode != unix.S_IFDIR|0o711 {
		t.Errorf("files %+v, %+v, root %o", f, g, root.Mode)
	}
	if gone.Mode&unix.S_IFMT != unix.S_IFCHR || gone.Rdev != 0 {
		t.Errorf("whiteout: %o, device %d", gone.Mode, gone.Rdev)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(again, "a/b"), "trusted.overlay.opaque", buf); err != nil || string(buf[:n]) != "y" {
		t.Errorf("opaque: %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(filepath.Join(again, "a"), "trusted.overlay.origin", buf); !errors.Is(err, unix.ENODATA) {
		t.Errorf("origin: %v", err)
	}
	if target, err := os.Readlink(filepath.Join(again, "l")); err != nil || target != "/etc/passwd" {
		t.Errorf("link %q, %v", target, err)
	}
}

func TestHostileStreamsAreRefused(t *testing.T) {
	for name, all := range map[string][]tar.Header{
		"a device":            {{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}},
		"a climbing name":     {{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "../x"}},
		"a foreign hard link": {{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeLink, Name: "x", Linkname: "etc/shadow"}},
		"an unlisted parent":  {{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "etc/x"}},
		"no root":             {{Typeflag: tar.TypeReg, Name: "x"}},
	} {
		var stream bytes.Buffer
		w := tar.NewWriter(&stream)
		for _, h := range all {
			must(t, w.WriteHeader(&h))
		}
		must(t, w.Close())
		dir := t.TempDir()
		if err := changes.Apply(t.Context(), filepath.Join(dir, "upper"), bytes.NewReader(stream.Bytes())); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 1 {
			t.Errorf("%s: %v is beside", name, left)
		}
	}
	if err := changes.Apply(t.Context(), filepath.Join(t.TempDir(), "upper"), bytes.NewReader(bytes.Repeat([]byte("x"), 2000))); !errors.Is(err, errs.Invalid) {
		t.Errorf("no archive: %v", err)
	}
}

func TestWhatALayerCannotSayIsUnsupported(t *testing.T) {
	testutil.Root(t)
	upper := t.TempDir()
	must(t, unix.Mknod(filepath.Join(upper, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	if err := changes.Write(t.Context(), upper, &bytes.Buffer{}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("a device: %v", err)
	}
	upper = t.TempDir()
	must(t, os.WriteFile(filepath.Join(upper, ".wh.x"), nil, 0o600))
	if err := changes.Write(t.Context(), upper, &bytes.Buffer{}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("a whiteout's name: %v", err)
	}
}
