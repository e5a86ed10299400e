package transfer_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/client/transfer"
)

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestATreeComesBackUnderItsNewName(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	write(t, from+"/a", "one", 0o640)
	write(t, from+"/sub/b", "two", 0o755)
	if err := os.Symlink("../a", from+"/sub/link"); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := transfer.Pack(&packed, from, "tree"); err != nil {
		t.Fatal(err)
	}
	write(t, to+"/copy/a", "what was there before", 0o600)
	if err := transfer.Unpack(&packed, to, "tree", "copy"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "one", "sub/b": "two", "sub/link": "one"} {
		if got, err := os.ReadFile(filepath.Join(to, "copy", name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Stat(to + "/copy/sub/b"); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	packed.Reset()
	if err := transfer.Pack(&packed, from+"/a", "x"); err != nil {
		t.Fatal(err)
	}
	if err := transfer.Unpack(&packed, to, "x", "y"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to + "/y"); err != nil || string(got) != "one" {
		t.Errorf("a file: %q, %v", got, err)
	}
}

func archive(t *testing.T, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write([]byte("evil"))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestAContainersArchiveLeadsNowhereElse(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o6755} }
	outside := t.TempDir()
	for name, entries := range map[string][]tar.Header{
		"upwards":              {file("d/../../evil")},
		"absolute":             {file("/evil")},
		"another name":         {file("other")},
		"the name's beginning": {file("data")},
		"through a link": {
			{Typeflag: tar.TypeSymlink, Name: "d", Linkname: outside}, file("d/evil"),
		},
		"through a link below": {
			{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755}, {Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: ".."}, file("d/l/../evil"),
		},
		"a hard link": {
			{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755}, {Typeflag: tar.TypeLink, Name: "d/l", Linkname: "../victim"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			write(t, base+"/victim", "", 0o600)
			if err := os.Mkdir(base+"/in", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := transfer.Unpack(archive(t, entries...), base+"/in", "d", "d"); err == nil && name != "through a link below" {
				t.Error("it is taken")
			}
			for _, path := range []string{base + "/evil", base + "/in/evil", outside + "/evil", "/evil", base + "/in/other", base + "/in/data"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s was made", path)
				}
			}
		})
	}
	dir := t.TempDir()
	if err := transfer.Unpack(archive(t, file("d"), tar.Header{Typeflag: tar.TypeChar, Name: "d/dev", Mode: 0o666}), dir, "d", "d"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/d"); err != nil || info.Mode() != 0o755 {
		t.Errorf("set-id bits: %v, %v", info.Mode(), err)
	}
}

func TestAFileThatIsReplacedIsNotWrittenThroughItsLink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	write(t, victim, "whole", 0o600)
	if err := os.Symlink(victim, dir+"/d"); err != nil {
		t.Fatal(err)
	}
	if err := transfer.Unpack(archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "d", Mode: 0o644}), dir, "d", "d"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "whole" {
		t.Errorf("the link's target is %q, %v", got, err)
	}
}
