package treesum_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/image/treesum"
)

// tree makes a small tree and returns it.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range map[string]string{"a": "first", "d/b": "second", "d/e/c": strings.Repeat("x", 600<<10), "d/empty": ""} {
		p := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "d/again")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func of(t *testing.T, dir string) treesum.Sum {
	t.Helper()
	sum, err := treesum.Of(t.Context(), dir)
	must(t, err)
	return sum
}

func TestASumIsTheSameReadOrWritten(t *testing.T) {
	dir := tree(t)
	var want treesum.Sum
	for _, content := range []string{strings.Repeat("x", 600<<10), "", "second", "first"} {
		var f treesum.File
		for _, part := range strings.SplitAfter(content, "xxxxx") {
			_, _ = f.Write([]byte(part))
		}
		want.Add(f)
	}
	var err error
	want.Names, err = treesum.Names(t.Context(), dir)
	must(t, err)
	if got := of(t, dir); got != want || got.Names != 8 {
		t.Errorf("read %+v, written %+v", got, want)
	}
}

func TestDamageChangesTheSum(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		says   string
	}{
		"a name is gone":    {func(dir string) error { return os.Remove(dir + "/d/again") }, "7 names where 8"},
		"a link is gone":    {func(dir string) error { return os.Remove(dir + "/link") }, "7 names"},
		"a file is empty":   {func(dir string) error { return os.Truncate(dir+"/d/b", 0) }, "bytes in 4 files"},
		"a file is zeros":   {func(dir string) error { return os.WriteFile(dir+"/d/b", make([]byte, 6), 0o600) }, "other content"},
		"a byte is changed": {func(dir string) error { return os.WriteFile(dir+"/a", []byte("fIrst"), 0o600) }, "other content"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t)
			before := of(t, dir)
			must(t, c.damage(dir))
			if got := before.Diff(of(t, dir)); !strings.Contains(got, c.says) {
				t.Errorf("says %q", got)
			}
		})
	}
	dir := tree(t)
	if got := of(t, dir).Diff(of(t, dir)); got != "" {
		t.Error(got)
	}
}
