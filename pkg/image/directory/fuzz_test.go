package directory

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/test/testutil"
)

// FuzzUnpack holds that no stream makes a panic or writes outside its tree.
func FuzzUnpack(f *testing.F) {
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "a/", Mode: 0o755}, entrytest.Item{Name: "a/b", Data: "x"}, entrytest.Item{Name: "c", Kind: tar.TypeSymlink, Link: "../.."}, entrytest.Item{Name: "c/d", Data: "y"}))
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "a/.wh.b"}, entrytest.Item{Name: "a/.wh..wh..opq"}, entrytest.Item{Name: "h", Kind: tar.TypeLink, Link: "a/b"}))
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "dev/null", Kind: tar.TypeChar, Major: 1, Minor: 3}, entrytest.Item{Name: "x", Data: "x", Xattrs: map[string]string{"user.a": "b"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		testutil.Root(t)
		dir, limits := t.TempDir(), entry.Limits{Bytes: 1 << 20, Entries: 200, Names: 1 << 16}
		made, err := Unpack(t.Context(), filepath.Join(dir, "tree"), bytes.NewReader(data), limits)
		if err == nil && (made.Bytes > limits.Bytes || made.Inodes > limits.Entries) {
			t.Errorf("over the limits: %+v", made)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || names[0].Name() != "tree" {
			t.Errorf("outside: %v, %v", names, err)
		}
	})
}
