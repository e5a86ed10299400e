package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/test/testutil"
)

// both runs a test over stores of both forms.
func both(t *testing.T, test func(t *testing.T, b Backend)) {
	for _, b := range []Backend{Directory, EROFS} {
		t.Run(string(b), func(t *testing.T) { test(t, b) })
	}
}

func store(t testing.TB, b Backend, limits entry.Limits) *Store {
	t.Helper()
	testutil.Root(t)
	dir := t.TempDir()
	return reopen(t, dir, Options{Backend: b, Limits: limits})
}

// reopen opens the store below dir, as the next process does.
func reopen(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	o.Mounts = filepath.Join(dir, "mounts")
	s, err := Open(filepath.Join(dir, "layers"), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, why := s.Backend(); got != o.Backend {
		testutil.Need(t, false, fmt.Sprint(why))
	}
	t.Cleanup(func() {
		if err := s.mounts.each(func(digest.Digest) bool { return true }); err != nil {
			t.Error(err)
		}
	})
	return s
}

// plain is a stream that cannot be opened again but from its beginning.
type plain struct{ io.Reader }

func (plain) Close() error       { return nil }
func (plain) Mark() (Mark, bool) { return Mark{}, false }

func unpack(t testing.TB, s *Store, data []byte) (Info, error) {
	t.Helper()
	return s.Unpack(t.Context(), digest.FromBytes(data), func(Mark) (Stream, error) { return plain{bytes.NewReader(data)}, nil })
}

func TestUnpackSetsWhatTheStreamSays(t *testing.T) {
	both(t, func(t *testing.T, b Backend) {
		s := store(t, b, entry.Limits{})
		capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		data := entrytest.Stream(t,
			entrytest.Item{Name: "bin/", Mode: 0o755},
			entrytest.Item{Name: "bin/su", Data: "su", Mode: 0o4755, UID: 0},
			entrytest.Item{Name: "bin/ping", Data: "p", Mode: 0o755, UID: 5, GID: 6, Xattrs: map[string]string{
				"security.capability": capability, "user.note": "n", "trusted.overlay.opaque": "y", "security.selinux": "x", "user.overlay.redirect": "/",
			}},
			entrytest.Item{Name: "bin/p2", Kind: tar.TypeLink, Link: "bin/ping"},
			entrytest.Item{Name: "bin/sh", Kind: tar.TypeSymlink, Link: "/bin/su"},
			entrytest.Item{Name: "dev/null", Kind: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666},
			entrytest.Item{Name: "run/fifo", Kind: tar.TypeFifo, Mode: 0o600},
			entrytest.Item{Name: strings.Repeat("long/", 60) + "name", Data: "pax"},
		)
		info, err := unpack(t, s, data)
		if err != nil {
			t.Fatal(err)
		}
		tree := stacked(t, s, []digest.Digest{info.DiffID})
		var st unix.Stat_t
		for path, want := range map[string]uint32{
			"bin/su": unix.S_IFREG | 0o4755, "bin/ping": unix.S_IFREG | 0o755, "bin": unix.S_IFDIR | 0o755,
			"dev/null": unix.S_IFCHR | 0o666, "run/fifo": unix.S_IFIFO | 0o600,
		} {
			if err := unix.Lstat(filepath.Join(tree, path), &st); err != nil || st.Mode != want || st.Mtim.Sec != 1_500_000_000 {
				t.Errorf("%s: mode %o, want %o, time %d, %v", path, st.Mode, want, st.Mtim.Sec, err)
			}
		}
		value := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(tree, "bin/p2"), "security.capability", value)
		if err != nil || string(value[:n]) != capability {
			t.Errorf("capability %q, %v", value[:max(n, 0)], err)
		}
		for _, name := range []string{"trusted.overlay.opaque", "user.overlay.redirect"} {
			if _, err := unix.Getxattr(filepath.Join(tree, "bin/ping"), name, value); !errors.Is(err, unix.ENODATA) {
				t.Errorf("%s was set: %v", name, err)
			}
		}
	})
}

// hostile is a stream and what becomes of it.
type hostile struct {
	entries []entrytest.Item
	kind    errs.Kind // of the error; "" where the stream is taken
}

func hostileStreams(outside, victim string) map[string]hostile {
	return map[string]hostile{
		"climbs":                    {[]entrytest.Item{{Name: "../victim", Data: "x"}}, errs.Invalid},
		"climbs in the middle":      {[]entrytest.Item{{Name: "a/../../victim", Data: "x"}}, errs.Invalid},
		"absolute":                  {[]entrytest.Item{{Name: victim, Data: "x"}}, ""},
		"through a link out":        {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: outside}, {Name: "a/victim", Data: "x"}}, ""},
		"through dots":              {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: "../../../../../../.." + outside}, {Name: "a/victim", Data: "x"}}, ""},
		"over a link":               {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: victim}, {Name: "a", Data: "x"}}, ""},
		"whiteout through a link":   {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: outside}, {Name: "a/.wh.victim"}}, ""},
		"opaque through a link":     {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: outside}, {Name: "a/.wh..wh..opq"}}, ""},
		"mode through a link":       {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: outside}, {Name: "a/", Mode: 0o777}}, ""},
		"hard link out":             {[]entrytest.Item{{Name: "a", Kind: tar.TypeLink, Link: "../../../.." + victim}}, errs.Invalid},
		"hard link, absolute":       {[]entrytest.Item{{Name: "a", Kind: tar.TypeLink, Link: victim}}, ""},
		"hard link through a link":  {[]entrytest.Item{{Name: "d", Kind: tar.TypeSymlink, Link: outside}, {Name: "a", Kind: tar.TypeLink, Link: "d/victim"}, {Name: "a", Data: "x"}}, ""},
		"hard link to itself":       {[]entrytest.Item{{Name: "a", Kind: tar.TypeLink, Link: "a"}}, errs.Invalid},
		"hard link to a directory":  {[]entrytest.Item{{Name: "d/"}, {Name: "a", Kind: tar.TypeLink, Link: "d"}}, errs.Invalid},
		"link loop":                 {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: "a"}, {Name: "a/b", Data: "x"}}, "any"},
		"magic link":                {[]entrytest.Item{{Name: "a", Kind: tar.TypeSymlink, Link: "/proc/self/root"}, {Name: "a" + victim, Data: "x"}}, ""},
		"whiteout of nothing":       {[]entrytest.Item{{Name: "a/.wh."}}, errs.Invalid},
		"whiteout of dot":           {[]entrytest.Item{{Name: "a/.wh.."}}, errs.Invalid},
		"whiteout of dot dot":       {[]entrytest.Item{{Name: "a/.wh..."}}, errs.Invalid},
		"root is a file":            {[]entrytest.Item{{Name: ".", Data: "x"}}, errs.Invalid},
		"below a file":              {[]entrytest.Item{{Name: "a", Data: "x"}, {Name: "a/b", Data: "x"}}, errs.Invalid},
		"negative owner":            {[]entrytest.Item{{Name: "a", UID: -1}}, errs.Invalid},
		"owner of more than 32 bit": {[]entrytest.Item{{Name: "a", UID: 1 << 33}}, errs.Invalid},
		"many bytes":                {[]entrytest.Item{{Name: "a", Data: strings.Repeat("x", 3000)}, {Name: "b", Data: strings.Repeat("x", 3000)}}, errs.Invalid},
		"many entries":              {make([]entrytest.Item, 200), errs.Invalid},
		"implies many entries":      {[]entrytest.Item{{Name: strings.Repeat("d/", 60), Mode: 0o755}, {Name: strings.Repeat("e/", 60), Mode: 0o755}}, errs.Invalid},
		"implies long names":        {[]entrytest.Item{{Name: strings.Repeat(strings.Repeat("d", 200)+"/", 15)}}, errs.Invalid},
		"lists long names":          {longNames(15, entrytest.Item{Name: "/", Mode: 0o755}), errs.Invalid},
		"links by long names":       {longNames(15, entrytest.Item{Kind: tar.TypeLink, Link: "below"}), errs.Invalid},
		"hides by long names":       {longNames(15, entrytest.Item{Name: "/.wh.x"}), errs.Invalid},
		"too deep":                  {[]entrytest.Item{{Name: strings.Repeat("d/", 2100)}}, errs.Invalid},
	}
}

// longNames repeats an entry, below other names of 240 bytes.
func longNames(n int, e entrytest.Item) []entrytest.Item {
	var all []entrytest.Item
	for i := range n {
		next := e
		next.Name = strings.Repeat(string(rune('a'+i)), 240) + e.Name
		all = append(all, next)
	}
	return all
}

// TestLayerThatNobodyCouldReadAgainIsRefused has names that JSON makes six times
// as long.
func TestLayerThatNobodyCouldReadAgainIsRefused(t *testing.T) {
	s := store(t, Directory, entry.Limits{})
	var links []entrytest.Item
	for n := range 14_000 {
		links = append(links, entrytest.Item{Name: fmt.Sprint(n), Kind: tar.TypeLink, Link: strings.Repeat("\x01", 240)})
	}
	if info, err := unpack(t, s, entrytest.Stream(t, links...)); !errors.Is(err, errs.Invalid) {
		t.Errorf("%d links, %v", len(info.Links), err)
	}
}

// TestHostileStreams holds that a stream is refused, or harms nothing outside.
func TestHostileStreams(t *testing.T) {
	both(t, func(t *testing.T, b Backend) {
		outside := t.TempDir()
		victim := filepath.Join(outside, "victim")
		if err := os.WriteFile(victim, []byte("safe"), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, c := range hostileStreams(outside, victim) {
			t.Run(name, func(t *testing.T) {
				s := store(t, b, entry.Limits{Bytes: 5000, Entries: 100, Names: 4096})
				for n := range c.entries {
					if c.entries[n].Name == "" {
						c.entries[n].Name = "file"
					}
				}
				_, err := unpack(t, s, entrytest.Stream(t, c.entries...))
				switch {
				case c.kind == "any" && err == nil, c.kind == "" && err != nil, c.kind != "" && c.kind != "any" && errs.Of(err) != c.kind:
					t.Errorf("got %v, want kind %q", err, c.kind)
				}
				if left, globErr := filepath.Glob(filepath.Join(s.dir, ingestPrefix+"*")); err != nil && (globErr != nil || len(left) != 0) {
					t.Errorf("left over: %v", left)
				}
				entries, err := os.ReadDir(outside)
				if err != nil || len(entries) != 1 {
					t.Fatalf("outside: %v, %v", entries, err)
				}
				data, err := os.ReadFile(victim)
				if err != nil || string(data) != "safe" {
					t.Fatalf("victim: %q, %v", data, err)
				}
				info, err := os.Stat(outside)
				if err != nil || info.Mode().Perm() == 0o777 {
					t.Fatalf("outside's mode: %v, %v", info.Mode(), err)
				}
			})
		}
	})
}

// TestAufsKeepsNothingOfItsOwn unpacks a layer as Docker saved it on aufs.
func TestAufsKeepsNothingOfItsOwn(t *testing.T) {
	both(t, func(t *testing.T, b Backend) {
		s := store(t, b, entry.Limits{})
		info, err := unpack(t, s, entrytest.Stream(t,
			entrytest.Item{Name: ".wh..wh.aufs", Data: ""},
			entrytest.Item{Name: ".wh..wh.orph/", Mode: 0o700},
			entrytest.Item{Name: ".wh..wh.orph/x", Data: "x"},
			entrytest.Item{Name: ".wh..wh.plnk/", Mode: 0o700},
			entrytest.Item{Name: ".wh..wh.plnk/12.34", Data: "shared", Mode: 0o640, UID: 3},
			entrytest.Item{Name: ".wh..wh.plnk/l", Kind: tar.TypeLink, Link: "elsewhere"},
			entrytest.Item{Name: ".wh..wh.plnk/.wh.y"},
			entrytest.Item{Name: "a", Kind: tar.TypeLink, Link: ".wh..wh.plnk/12.34"},
			entrytest.Item{Name: "d/b", Kind: tar.TypeLink, Link: ".wh..wh.plnk/12.34"},
		))
		if err != nil {
			t.Fatal(err)
		}
		got := describe(t, stacked(t, s, []digest.Digest{info.DiffID}))
		want := map[string]string{".": got["."], "a": "100640 3:0 shared", "d": got["d"], "d/b": "100640 3:0 shared"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if b == Directory && (len(info.Links)+len(info.Whiteouts) != 0 || !slices.Equal(info.Implied, []string{".", "d"})) {
			t.Errorf("left open: %+v", info)
		}
	})
}

func TestUnpackVerifiesTheDigest(t *testing.T) {
	both(t, func(t *testing.T, b Backend) {
		s := store(t, b, entry.Limits{})
		data := entrytest.Stream(t, entrytest.Item{Name: "a", Data: "x"})
		want := digest.FromString("something else")
		_, err := s.Unpack(t.Context(), want, func(Mark) (Stream, error) { return plain{bytes.NewReader(data)}, nil })
		if err == nil || s.Has(want) {
			t.Errorf("err %v, has %v", err, s.Has(want))
		}
	})
}

func TestSparseFileStaysSparse(t *testing.T) {
	s := store(t, Directory, entry.Limits{})
	info, err := unpack(t, s, entrytest.Sparse(t, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.Tree(info.DiffID), "big"), &st); err != nil || st.Size != 1<<30 || st.Blocks > 64 {
		t.Errorf("size %d, blocks %d, %v", st.Size, st.Blocks, err)
	}
	if _, err := unpack(t, store(t, Directory, entry.Limits{Bytes: 1 << 20}), entrytest.Sparse(t, 1<<30)); !errors.Is(err, errs.Invalid) {
		t.Errorf("bomb: %v", err)
	}
}
