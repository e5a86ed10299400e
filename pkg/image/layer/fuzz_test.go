package layer

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/test/testutil"
)

// FuzzUnpack holds that no stream makes a panic or writes outside its tree.
func FuzzUnpack(f *testing.F) {
	f.Add(stream(f, item{name: "a/", mode: 0o755}, item{name: "a/b", data: "x"}, item{name: "c", kind: tar.TypeSymlink, link: "../.."}, item{name: "c/d", data: "y"}))
	f.Add(stream(f, item{name: "a/.wh.b"}, item{name: "a/.wh..wh..opq"}, item{name: "h", kind: tar.TypeLink, link: "a/b"}))
	f.Add(stream(f, item{name: "dev/null", kind: tar.TypeChar, major: 1, minor: 3}, item{name: "x", data: "x", xattrs: map[string]string{"user.a": "b"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		testutil.Root(t)
		dir := t.TempDir()
		s, err := Open(filepath.Join(dir, "layers"), entry.Limits{Bytes: 1 << 20, Entries: 200, Names: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		// Not Unpack: its sync of the disk is slow.
		temp := filepath.Join(s.dir, "temp")
		if err := os.Mkdir(temp, 0o700); err != nil {
			t.Fatal(err)
		}
		info, err := s.unpackInto(t.Context(), temp, digest.FromBytes(data), bytes.NewReader(data))
		if err == nil && (info.Bytes > s.limits.Bytes || info.Inodes > s.limits.Entries) {
			t.Errorf("over the limits: %+v", info)
		}
		for at, want := range map[string]string{dir: "layers", s.dir: "temp", temp: treeDir} {
			if names, err := os.ReadDir(at); err != nil || len(names) != 1 || names[0].Name() != want {
				t.Errorf("outside: %v, %v", names, err)
			}
		}
	})
}
