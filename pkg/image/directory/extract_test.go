package directory

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

func TestExtractStaysBelowItsDirectory(t *testing.T) {
	testutil.Root(t)
	outside := t.TempDir()
	for name, c := range map[string]struct {
		files []images.File
		bad   bool
	}{
		"climbing":           {[]images.File{{Name: "../x", Data: []byte("x")}}, true},
		"through a link":     {[]images.File{{Name: "l", Type: images.Symlink, Link: outside}, {Name: "l/x", Data: []byte("x")}}, false},
		"a link to the host": {[]images.File{{Name: "x", Type: images.Hardlink, Link: "/etc/passwd"}}, true},
		"a whiteout":         {[]images.File{{Name: "a"}, {Name: ".wh.a"}}, true},
		"an opaque mark":     {[]images.File{{Name: "d/.wh..wh..opq"}}, true},
		"aufs's own":         {[]images.File{{Name: ".wh..wh.plnk/x"}}, true},
	} {
		stream, err := images.Layer{Files: c.files}.Stream()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, _, err = Extract(t.Context(), dir, entry.Limits{}, bytes.NewReader(stream))
		if c.bad != errors.Is(err, errs.Invalid) || !c.bad && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("%s: outside are %v, %v", name, left, err)
		}
	}
}

func TestExtractCountsAndReadsToTheEnd(t *testing.T) {
	testutil.Root(t)
	stream, err := images.Layer{Files: []images.File{{Name: "a/b", Data: make([]byte, 100)}, {Name: "c", Type: images.Symlink, Link: "a"}}}.Stream()
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(append(stream, make([]byte, 3000)...))
	size, inodes, err := Extract(t.Context(), t.TempDir(), entry.Limits{}, r)
	if err != nil || size != 100 || inodes != 3 || r.Len() != 0 {
		t.Errorf("%d bytes, %d inodes, %d unread, %v", size, inodes, r.Len(), err)
	}
	if _, _, err := Extract(t.Context(), t.TempDir(), entry.Limits{Bytes: 99}, bytes.NewReader(stream)); !errors.Is(err, errs.Invalid) {
		t.Errorf("too large: %v", err)
	}
}
