package procfd_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/procfd"
)

func held(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := held(t, path)
	if err := os.Rename(path, path+"2"); err != nil { // what is held counts
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	opened, err := procfd.OpenRegular(f)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if text, err := os.ReadFile(procfd.Path(opened.Fd())); err != nil || string(text) != "text" {
		t.Errorf("got %q, %v", text, err)
	}
	for _, other := range []string{dir, "/dev/null"} {
		if _, err := procfd.OpenRegular(held(t, other)); !errors.Is(err, procfd.ErrNotRegular) {
			t.Errorf("%s: %v", other, err)
		}
	}
}

func TestAttributesOfAnySizeAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := held(t, path)
	if names, err := procfd.Xattrs(f.Fd()); err != nil || len(names) > 0 {
		t.Errorf("without any: %q, %v", names, err)
	}
	want := map[string][]byte{"user.short": []byte("s"), "user.long": bytes.Repeat([]byte("l"), 1000), "user.empty": {}}
	for name, value := range want {
		if err := unix.Setxattr(path, name, value, 0); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("the file system has no extended attributes")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	names, err := procfd.Xattrs(f.Fd())
	if err != nil || len(names) != len(want) || !slices.Contains(names, "user.long") {
		t.Errorf("got %q, %v", names, err)
	}
	for name, value := range want {
		if got, err := procfd.Xattr(f.Fd(), name); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := procfd.Xattr(f.Fd(), "user.none"); !errors.Is(err, unix.ENODATA) {
		t.Errorf("missing: %v", err)
	}
}
