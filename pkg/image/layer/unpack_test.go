package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/test/testutil"
)

// item is one entry of a test's tar stream; a name that ends in a slash is a
// directory.
type item struct {
	name, link, data string
	kind             byte
	mode             int64
	uid, gid         int
	major, minor     int64
	xattrs           map[string]string
}

func (e item) header() *tar.Header {
	h := &tar.Header{
		Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.gid, Size: int64(len(e.data)),
		Devmajor: e.major, Devminor: e.minor, ModTime: time.Unix(1_500_000_000, 0), Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	if e.kind == 0 {
		h.Typeflag = tar.TypeReg
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
	}
	if e.mode == 0 {
		h.Mode = 0o644
	}
	for k, v := range e.xattrs {
		h.PAXRecords[entry.XattrRecord+k] = v
	}
	return h
}

func stream(t testing.TB, entries ...item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(e.header()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func store(t testing.TB, limits entry.Limits) *Store {
	t.Helper()
	testutil.Root(t)
	s, err := Open(filepath.Join(t.TempDir(), "layers"), limits)
	if err != nil {
		t.Fatal(err)
	}
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
	s := store(t, entry.Limits{})
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	data := stream(t,
		item{name: "bin/", mode: 0o755},
		item{name: "bin/su", data: "su", mode: 0o4755, uid: 0},
		item{name: "bin/ping", data: "p", mode: 0o755, uid: 5, gid: 6, xattrs: map[string]string{
			"security.capability": capability, "user.note": "n", "trusted.overlay.opaque": "y", "security.selinux": "x", "user.overlay.redirect": "/",
		}},
		item{name: "bin/p2", kind: tar.TypeLink, link: "bin/ping"},
		item{name: "bin/sh", kind: tar.TypeSymlink, link: "/bin/su"},
		item{name: "dev/null", kind: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
		item{name: "run/fifo", kind: tar.TypeFifo, mode: 0o600},
		item{name: strings.Repeat("long/", 60) + "name", data: "pax"},
	)
	info, err := unpack(t, s, data)
	if err != nil {
		t.Fatal(err)
	}
	tree := s.Tree(info.DiffID)
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
}

// hostile is a stream and what becomes of it.
type hostile struct {
	entries []item
	kind    errs.Kind // of the error; "" where the stream is taken
}

func hostileStreams(outside, victim string) map[string]hostile {
	return map[string]hostile{
		"climbs":                    {[]item{{name: "../victim", data: "x"}}, errs.Invalid},
		"climbs in the middle":      {[]item{{name: "a/../../victim", data: "x"}}, errs.Invalid},
		"absolute":                  {[]item{{name: victim, data: "x"}}, ""},
		"through a link out":        {[]item{{name: "a", kind: tar.TypeSymlink, link: outside}, {name: "a/victim", data: "x"}}, ""},
		"through dots":              {[]item{{name: "a", kind: tar.TypeSymlink, link: "../../../../../../.." + outside}, {name: "a/victim", data: "x"}}, ""},
		"over a link":               {[]item{{name: "a", kind: tar.TypeSymlink, link: victim}, {name: "a", data: "x"}}, ""},
		"whiteout through a link":   {[]item{{name: "a", kind: tar.TypeSymlink, link: outside}, {name: "a/.wh.victim"}}, ""},
		"opaque through a link":     {[]item{{name: "a", kind: tar.TypeSymlink, link: outside}, {name: "a/.wh..wh..opq"}}, ""},
		"mode through a link":       {[]item{{name: "a", kind: tar.TypeSymlink, link: outside}, {name: "a/", mode: 0o777}}, ""},
		"hard link out":             {[]item{{name: "a", kind: tar.TypeLink, link: "../../../.." + victim}}, errs.Invalid},
		"hard link, absolute":       {[]item{{name: "a", kind: tar.TypeLink, link: victim}}, ""},
		"hard link through a link":  {[]item{{name: "d", kind: tar.TypeSymlink, link: outside}, {name: "a", kind: tar.TypeLink, link: "d/victim"}, {name: "a", data: "x"}}, ""},
		"hard link to itself":       {[]item{{name: "a", kind: tar.TypeLink, link: "a"}}, errs.Invalid},
		"hard link to a directory":  {[]item{{name: "d/"}, {name: "a", kind: tar.TypeLink, link: "d"}}, errs.Invalid},
		"link loop":                 {[]item{{name: "a", kind: tar.TypeSymlink, link: "a"}, {name: "a/b", data: "x"}}, "any"},
		"magic link":                {[]item{{name: "a", kind: tar.TypeSymlink, link: "/proc/self/root"}, {name: "a" + victim, data: "x"}}, ""},
		"whiteout of nothing":       {[]item{{name: "a/.wh."}}, errs.Invalid},
		"whiteout of dot":           {[]item{{name: "a/.wh.."}}, errs.Invalid},
		"whiteout of dot dot":       {[]item{{name: "a/.wh..."}}, errs.Invalid},
		"root is a file":            {[]item{{name: ".", data: "x"}}, errs.Invalid},
		"below a file":              {[]item{{name: "a", data: "x"}, {name: "a/b", data: "x"}}, errs.Invalid},
		"negative owner":            {[]item{{name: "a", uid: -1}}, errs.Invalid},
		"owner of more than 32 bit": {[]item{{name: "a", uid: 1 << 33}}, errs.Invalid},
		"many bytes":                {[]item{{name: "a", data: strings.Repeat("x", 3000)}, {name: "b", data: strings.Repeat("x", 3000)}}, errs.Invalid},
		"many entries":              {make([]item, 200), errs.Invalid},
		"implies many entries":      {[]item{{name: strings.Repeat("d/", 60), mode: 0o755}, {name: strings.Repeat("e/", 60), mode: 0o755}}, errs.Invalid},
		"implies long names":        {[]item{{name: strings.Repeat(strings.Repeat("d", 200)+"/", 15)}}, errs.Invalid},
		"lists long names":          {longNames(15, item{name: "/", mode: 0o755}), errs.Invalid},
		"links by long names":       {longNames(15, item{kind: tar.TypeLink, link: "below"}), errs.Invalid},
		"hides by long names":       {longNames(15, item{name: "/.wh.x"}), errs.Invalid},
		"too deep":                  {[]item{{name: strings.Repeat("d/", 2100)}}, errs.Invalid},
	}
}

// longNames repeats an entry, below other names of 240 bytes.
func longNames(n int, e item) []item {
	var all []item
	for i := range n {
		next := e
		next.name = strings.Repeat(string(rune('a'+i)), 240) + e.name
		all = append(all, next)
	}
	return all
}

// TestLayerThatNobodyCouldReadAgainIsRefused has names that JSON makes six times
// as long.
func TestLayerThatNobodyCouldReadAgainIsRefused(t *testing.T) {
	s := store(t, entry.Limits{})
	var links []item
	for n := range 14_000 {
		links = append(links, item{name: itoa(int64(n)), kind: tar.TypeLink, link: strings.Repeat("\x01", 240)})
	}
	if info, err := unpack(t, s, stream(t, links...)); !errors.Is(err, errs.Invalid) {
		t.Errorf("%d links, %v", len(info.Links), err)
	}
}

// TestHostileStreams holds that a stream is refused, or harms nothing outside.
func TestHostileStreams(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range hostileStreams(outside, victim) {
		t.Run(name, func(t *testing.T) {
			s := store(t, entry.Limits{Bytes: 5000, Entries: 100, Names: 4096})
			for n := range c.entries {
				if c.entries[n].name == "" {
					c.entries[n].name = "file"
				}
			}
			_, err := unpack(t, s, stream(t, c.entries...))
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
}

// TestAufsKeepsNothingOfItsOwn unpacks a layer as Docker saved it on aufs.
func TestAufsKeepsNothingOfItsOwn(t *testing.T) {
	s := store(t, entry.Limits{})
	info, err := unpack(t, s, stream(t,
		item{name: ".wh..wh.aufs", data: ""},
		item{name: ".wh..wh.orph/", mode: 0o700},
		item{name: ".wh..wh.orph/x", data: "x"},
		item{name: ".wh..wh.plnk/", mode: 0o700},
		item{name: ".wh..wh.plnk/12.34", data: "shared", mode: 0o640, uid: 3},
		item{name: ".wh..wh.plnk/l", kind: tar.TypeLink, link: "elsewhere"},
		item{name: ".wh..wh.plnk/.wh.y"},
		item{name: "a", kind: tar.TypeLink, link: ".wh..wh.plnk/12.34"},
		item{name: "d/b", kind: tar.TypeLink, link: ".wh..wh.plnk/12.34"},
	))
	if err != nil {
		t.Fatal(err)
	}
	got := describe(t, s.Tree(info.DiffID))
	want := map[string]string{".": got["."], "a": "100640 3:0 shared", "d": got["d"], "d/b": "100640 3:0 shared"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(info.Links)+len(info.Whiteouts) != 0 || !slices.Equal(info.Implied, []string{".", "d"}) {
		t.Errorf("left open: %+v", info)
	}
}

func TestUnpackVerifiesTheDigest(t *testing.T) {
	s := store(t, entry.Limits{})
	data := stream(t, item{name: "a", data: "x"})
	want := digest.FromString("something else")
	_, err := s.Unpack(t.Context(), want, func(Mark) (Stream, error) { return plain{bytes.NewReader(data)}, nil })
	if err == nil || s.Has(want) {
		t.Errorf("err %v, has %v", err, s.Has(want))
	}
}

func TestSparseFileStaysSparse(t *testing.T) {
	s := store(t, entry.Limits{})
	info, err := unpack(t, s, sparseStream(t, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.Tree(info.DiffID), "big"), &st); err != nil || st.Size != 1<<30 || st.Blocks > 64 {
		t.Errorf("size %d, blocks %d, %v", st.Size, st.Blocks, err)
	}
	if _, err := unpack(t, store(t, entry.Limits{Bytes: 1 << 20}), sparseStream(t, 1<<30)); !errors.Is(err, errs.Invalid) {
		t.Errorf("bomb: %v", err)
	}
}

// sparseStream is a file of size bytes, in PAX 1.0 sparse form, with one byte of
// data at its end.
func sparseStream(t testing.TB, size int64) []byte {
	t.Helper()
	sparseMap := "1\n" + itoa(size-1) + "\n1\n"
	body := sparseMap + strings.Repeat("\x00", 512-len(sparseMap)) + "x"
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	// The writer refuses the reserved names, so the PAX header is made by hand.
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "big") + record("GNU.sparse.realsize", itoa(size))
	for _, h := range []struct {
		header tar.Header
		data   string
	}{
		{tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders.0/big", Size: int64(len(records)), Format: tar.FormatUSTAR}, records},
		{tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/big", Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}, body},
	} {
		if err := w.WriteHeader(&h.header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, h.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := buf.Bytes()
	out[156] = tar.TypeXHeader
	return rechecksum(out)
}

// rechecksum mends the first header's checksum.
func rechecksum(b []byte) []byte {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], []byte(octal(sum)))
	return b
}
