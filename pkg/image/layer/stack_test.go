package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
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
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/test/testutil"
)

// describe lists a tree: what each path is and whose.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			link, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " -> " + link
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		all[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// compare unpacks layers alone, stacks and mounts them, and compares with the
// reference.
func compare(t testing.TB, layers ...[]item) {
	t.Helper()
	ref := reference{root: t.TempDir()}
	if err := os.Chmod(ref.root, 0o755); err != nil {
		t.Fatal(err)
	}
	ambiguous := false
	for _, l := range layers {
		ref.own = l
		err := ref.layer(l)
		if ambiguous = errors.Is(err, errAmbiguous); ambiguous {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := store(t, entry.Limits{})
	var diffIDs []digest.Digest
	for _, l := range layers {
		info, err := unpack(t, s, stream(t, l...))
		if err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, info.DiffID)
	}
	if ambiguous {
		if _, err := s.Stack(t.Context(), diffIDs, func(...digest.Digest) {}); err != nil && !errors.Is(err, errs.Invalid) {
			t.Error(err)
		}
		return
	}
	if diff := cmp.Diff(describe(t, ref.root), describe(t, stacked(t, s, diffIDs))); diff != "" {
		t.Errorf("layers:\n%s(-in order +stacked):\n%s", text(layers), diff)
	}
}

// text shows layers, one a line.
func text(layers [][]item) string {
	b := strings.Builder{}
	for n, l := range layers {
		fmt.Fprintf(&b, "%d:", n)
		for _, e := range l {
			fmt.Fprintf(&b, " %s(%s%s %o %d)", e.name, e.link, e.data, e.mode, e.uid)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// stacked mounts a stack until the test's end.
func stacked(t testing.TB, s *Store, diffIDs []digest.Digest) string {
	t.Helper()
	stack, err := s.Stack(t.Context(), diffIDs, func(...digest.Digest) {})
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.Lower(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	o := overlay.Mount{Lower: []string{t.TempDir()}}
	for _, d := range lower.Dirs {
		o.Lower = append(o.Lower, filepath.Join(lower.Base, d))
	}
	path := t.TempDir()
	if err := o.Attach(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestStackEqualsInOrder(t *testing.T) {
	base := []item{
		{name: "a/", mode: 0o700, uid: 1, gid: 2},
		{name: "a/b/", mode: 0o2775, uid: 3},
		{name: "a/b/f", data: "low", mode: 0o600, uid: 9},
		{name: "usr/", mode: 0o755},
		{name: "usr/lib/", mode: 0o711},
		{name: "usr/lib/l", data: "l", mode: 0o644},
		{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"},
		{name: "f", data: "f", mode: 0o640},
	}
	for name, upper := range map[string][]item{
		"implied directories":               {{name: "a/b/g", data: "new", mode: 0o644}},
		"implied directory of a whiteout":   {{name: "a/b/.wh.f"}},
		"implied and hidden":                {{name: "a/.wh.b"}, {name: "a/b/g", data: "new", mode: 0o644}},
		"hidden, in the other order":        {{name: "a/b/g", data: "new", mode: 0o644}, {name: "a/.wh.b"}},
		"hidden directory made again":       {{name: ".wh.a"}, {name: "a/", mode: 0o755}, {name: "a/x", data: "x", mode: 0o644}},
		"opaque":                            {{name: "a/b/.wh..wh..opq"}, {name: "a/b/n", data: "n", mode: 0o644}},
		"opaque, later":                     {{name: "a/n", data: "n", mode: 0o644}, {name: "a/.wh..wh..opq"}},
		"opaque root":                       {{name: ".wh..wh..opq"}, {name: "n", data: "n", mode: 0o644}},
		"whiteout and the file itself":      {{name: ".wh.f"}, {name: "f", data: "new", mode: 0o644}},
		"hard link into the layer below":    {{name: "h", kind: tar.TypeLink, link: "a/b/f"}},
		"hard link to such a link":          {{name: "h", kind: tar.TypeLink, link: "a/b/f"}, {name: "a/i", kind: tar.TypeLink, link: "h"}},
		"hard link through a link below":    {{name: "new/h", kind: tar.TypeLink, link: "lib/l"}},
		"hard link over a directory":        {{name: "a", kind: tar.TypeLink, link: "f"}},
		"hard link that is replaced":        {{name: "h", kind: tar.TypeLink, link: "f"}, {name: "h", data: "own", mode: 0o644}},
		"through a link of the layer below": {{name: "lib/m", data: "m", mode: 0o644}, {name: "lib/sub/", mode: 0o700, uid: 4}, {name: "lib/sub/k", data: "k", mode: 0o644}},
		"whiteout through such a link":      {{name: "lib/.wh.l"}},
		"opaque through such a link":        {{name: "lib/.wh..wh..opq"}, {name: "lib/n", data: "n", mode: 0o644}},
		"directory over a link":             {{name: "lib/", mode: 0o755}, {name: "lib/m", data: "m", mode: 0o644}},
		"hard link below such a link":       {{name: "lib/h", kind: tar.TypeLink, link: "f"}},
		"file over a directory":             {{name: "a", data: "file", mode: 0o644}},
		"directory over a file":             {{name: "f/", mode: 0o755}, {name: "f/x", data: "x", mode: 0o644}},
		"implied directory over a file":     {{name: "f/x", data: "x", mode: 0o644}},
		"root listed":                       {{name: "./", mode: 0o751, uid: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			compare(t, base, upper)
			compare(t, base, upper, []item{{name: "a/c/d", data: "top", mode: 0o644}, {name: "usr/lib/t", data: "t", mode: 0o644}})
		})
	}
}

// TestStackEqualsInOrderWhereLayersRepeat compares stacks of few layers, each
// there more than once: builders put the layer of no files wherever an
// instruction has changed none.
func TestStackEqualsInOrderWhereLayersRepeat(t *testing.T) {
	layers := map[string][]item{
		"empty": {},
		"base": {
			{name: "a/", mode: 0o700, uid: 1, gid: 2},
			{name: "a/b/", mode: 0o2775, uid: 3},
			{name: "a/b/f", data: "low", mode: 0o600, uid: 9},
			{name: "f", data: "f", mode: 0o640},
			{name: "usr/lib/l", data: "l", mode: 0o644},
			{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"},
		},
		"implies":  {{name: "a/b/g", data: "g", mode: 0o644}, {name: "lib/m", data: "m", mode: 0o644}},
		"removes":  {{name: "a/.wh.b"}, {name: ".wh.f"}, {name: "usr/lib/.wh.l"}},
		"replaces": {{name: "a", data: "file", mode: 0o644}, {name: "f/", mode: 0o755}, {name: "f/x", data: "x", mode: 0o644}},
		"hides":    {{name: "a/.wh..wh..opq"}, {name: "a/n", data: "n", mode: 0o644}, {name: ".wh.usr"}},
		"alone":    {{name: ".wh..wh..opq"}, {name: "a/alone", data: "n", mode: 0o644}},
		"new":      {{name: "new/.wh.x"}, {name: "new/.wh..wh..opq"}, {name: "new/y", data: "y", mode: 0o644}},
		"lib":      {{name: "lib/", mode: 0o750}, {name: "lib/.wh.l"}, {name: "lib/o", data: "o", mode: 0o644}},
	}
	for x := range layers {
		for y := range layers {
			t.Run(x+" "+y, func(t *testing.T) {
				compare(t, layers[x], layers[y], layers[x])
				compare(t, layers["base"], layers[x], layers["base"], layers[y], layers[x], layers["base"])
			})
		}
	}
	t.Run("hard links", func(t *testing.T) {
		link := []item{{name: "h", kind: tar.TypeLink, link: "a/b/f"}, {name: "lib/h", kind: tar.TypeLink, link: "f"}}
		compare(t, layers["base"], link, layers["base"], link)
		compare(t, layers["base"], link, layers["removes"], layers["base"])
		compare(t, layers["empty"], layers["base"], layers["empty"], link, link, layers["empty"])
	})
}

// TestStackEqualsInOrderOfGeneratedLayers compares layers made at random.
func TestStackEqualsInOrderOfGeneratedLayers(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			g := generator{rand.New(rand.NewPCG(uint64(seed), 1))}
			a, b, c := g.layer("", 0), g.layer("", 0), g.layer("", 0)
			compare(t, a, b, c)
			compare(t, a, b, a, c, b)
		})
	}
}

type generator struct{ *rand.Rand }

// layer makes the entries of one directory, no name twice, and of those below.
func (g generator) layer(dir string, depth int) []item {
	var all []item
	if depth > 0 && g.IntN(8) == 0 {
		all = append(all, item{name: dir + entry.WhiteoutOpaque})
	}
	for _, n := range []string{"a", "b", "c"} {
		p := dir + n
		mode := int64(0o700 | g.IntN(0o100))
		switch g.IntN(9) {
		case 0, 1:
			all = append(all, item{name: p, data: fmt.Sprint(g.IntN(100)), mode: mode, uid: g.IntN(4)})
		case 2:
			all = append(all, item{name: p, kind: tar.TypeSymlink, link: []string{"a", "/b", "../c", "/a/b", "none"}[g.IntN(5)], uid: g.IntN(3)})
		case 3:
			all = append(all, item{name: dir + entry.WhiteoutPrefix + n})
		case 4:
			if depth < 2 {
				all = append(all, item{name: p + "/", mode: mode, uid: g.IntN(4)})
				all = append(all, g.layer(p+"/", depth+1)...)
			}
		case 5, 6:
			if depth < 2 {
				all = append(all, g.layer(p+"/", depth+1)...) // implied, unless empty
			}
		}
	}
	return all
}

func TestHardLinkToNothingIsRefused(t *testing.T) {
	s := store(t, entry.Limits{})
	var diffIDs []digest.Digest
	for _, l := range [][]item{{{name: "a", data: "x"}}, {{name: "h", kind: tar.TypeLink, link: "b"}}} {
		info, err := unpack(t, s, stream(t, l...))
		if err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, info.DiffID)
	}
	for _, ids := range [][]digest.Digest{diffIDs, diffIDs[1:]} {
		if _, err := s.Stack(t.Context(), ids, func(...digest.Digest) {}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%d layers: %v", len(ids), err)
		}
	}
}

func TestManyLayersMount(t *testing.T) {
	s := store(t, entry.Limits{})
	var diffIDs []digest.Digest
	var want []string
	for n := range 200 {
		f := fmt.Sprintf("f%03d", n)
		info, err := unpack(t, s, stream(t, item{name: f, data: f}))
		if err != nil {
			t.Fatal(err)
		}
		diffIDs, want = append(diffIDs, info.DiffID), append(want, f)
	}
	entries, err := os.ReadDir(stacked(t, s, diffIDs))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestStackOfMoreThanTheKernelTakesIsRefused has layers that each need one more.
func TestStackOfMoreThanTheKernelTakesIsRefused(t *testing.T) {
	s := store(t, entry.Limits{})
	info, err := unpack(t, s, stream(t, item{name: "a", data: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	diffIDs := []digest.Digest{info.DiffID}
	for n := range 251 {
		info, err := unpack(t, s, stream(t, item{name: fmt.Sprint("l", n), kind: tar.TypeLink, link: "a"}))
		if err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, info.DiffID)
	}
	kept := 0
	if _, err := s.Stack(t.Context(), diffIDs, func(d ...digest.Digest) { kept += len(d) }); !errors.Is(err, errs.Unsupported) {
		t.Errorf("with %d more: %v", kept, err)
	}
	stack, err := s.Stack(t.Context(), diffIDs[:250], func(...digest.Digest) {})
	if err != nil || len(stack) != 499 {
		t.Errorf("%d layers, %v", len(stack), err)
	}
}

func TestTheStoreOpensAfterAKillInTheMiddleOfSettling(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	view := filepath.Join(dir, ingestPrefix+"1", viewDir)
	if err := os.MkdirAll(view, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", view, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(view, "of a layer below"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, entry.Limits{}); err != nil {
		_ = unix.Unmount(view, unix.MNT_DETACH)
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ingestPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
