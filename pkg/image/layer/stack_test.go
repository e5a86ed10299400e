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
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
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
func compare(t testing.TB, layers ...[]entrytest.Item) {
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
	for _, b := range []Backend{Directory, EROFS} {
		compareWith(t, store(t, b, entry.Limits{}), ref.root, ambiguous, layers)
	}
}

// compareWith compares layers in a store with the reference.
func compareWith(t testing.TB, s *Store, want string, ambiguous bool, layers [][]entrytest.Item) {
	t.Helper()
	backend, _ := s.Backend()
	var diffIDs []digest.Digest
	for _, l := range layers {
		info, err := unpack(t, s, entrytest.Stream(t, l...))
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
	if diff := cmp.Diff(describe(t, want), describe(t, stacked(t, s, diffIDs))); diff != "" {
		t.Errorf("%s, layers:\n%s(-in order +stacked):\n%s", backend, text(layers), diff)
	}
}

// text shows layers, one a line.
func text(layers [][]entrytest.Item) string {
	b := strings.Builder{}
	for n, l := range layers {
		fmt.Fprintf(&b, "%d:", n)
		for _, e := range l {
			fmt.Fprintf(&b, " %s(%s%s %o %d)", e.Name, e.Link, e.Data, e.Mode, e.UID)
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
	base := []entrytest.Item{
		{Name: "a/", Mode: 0o700, UID: 1, GID: 2},
		{Name: "a/b/", Mode: 0o2775, UID: 3},
		{Name: "a/b/f", Data: "low", Mode: 0o600, UID: 9},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/lib/", Mode: 0o711},
		{Name: "usr/lib/l", Data: "l", Mode: 0o644},
		{Name: "lib", Kind: tar.TypeSymlink, Link: "usr/lib"},
		{Name: "f", Data: "f", Mode: 0o640},
	}
	for name, upper := range map[string][]entrytest.Item{
		"implied directories":               {{Name: "a/b/g", Data: "new", Mode: 0o644}},
		"implied directory of a whiteout":   {{Name: "a/b/.wh.f"}},
		"implied and hidden":                {{Name: "a/.wh.b"}, {Name: "a/b/g", Data: "new", Mode: 0o644}},
		"hidden, in the other order":        {{Name: "a/b/g", Data: "new", Mode: 0o644}, {Name: "a/.wh.b"}},
		"hidden directory made again":       {{Name: ".wh.a"}, {Name: "a/", Mode: 0o755}, {Name: "a/x", Data: "x", Mode: 0o644}},
		"opaque":                            {{Name: "a/b/.wh..wh..opq"}, {Name: "a/b/n", Data: "n", Mode: 0o644}},
		"opaque, later":                     {{Name: "a/n", Data: "n", Mode: 0o644}, {Name: "a/.wh..wh..opq"}},
		"opaque root":                       {{Name: ".wh..wh..opq"}, {Name: "n", Data: "n", Mode: 0o644}},
		"whiteout and the file itself":      {{Name: ".wh.f"}, {Name: "f", Data: "new", Mode: 0o644}},
		"hard link into the layer below":    {{Name: "h", Kind: tar.TypeLink, Link: "a/b/f"}},
		"hard link to such a link":          {{Name: "h", Kind: tar.TypeLink, Link: "a/b/f"}, {Name: "a/i", Kind: tar.TypeLink, Link: "h"}},
		"hard link through a link below":    {{Name: "new/h", Kind: tar.TypeLink, Link: "lib/l"}},
		"hard link over a directory":        {{Name: "a", Kind: tar.TypeLink, Link: "f"}},
		"hard link that is replaced":        {{Name: "h", Kind: tar.TypeLink, Link: "f"}, {Name: "h", Data: "own", Mode: 0o644}},
		"through a link of the layer below": {{Name: "lib/m", Data: "m", Mode: 0o644}, {Name: "lib/sub/", Mode: 0o700, UID: 4}, {Name: "lib/sub/k", Data: "k", Mode: 0o644}},
		"whiteout through such a link":      {{Name: "lib/.wh.l"}},
		"opaque through such a link":        {{Name: "lib/.wh..wh..opq"}, {Name: "lib/n", Data: "n", Mode: 0o644}},
		"directory over a link":             {{Name: "lib/", Mode: 0o755}, {Name: "lib/m", Data: "m", Mode: 0o644}},
		"hard link below such a link":       {{Name: "lib/h", Kind: tar.TypeLink, Link: "f"}},
		"file over a directory":             {{Name: "a", Data: "file", Mode: 0o644}},
		"directory over a file":             {{Name: "f/", Mode: 0o755}, {Name: "f/x", Data: "x", Mode: 0o644}},
		"implied directory over a file":     {{Name: "f/x", Data: "x", Mode: 0o644}},
		"root listed":                       {{Name: "./", Mode: 0o751, UID: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			compare(t, base, upper)
			compare(t, base, upper, []entrytest.Item{{Name: "a/c/d", Data: "top", Mode: 0o644}, {Name: "usr/lib/t", Data: "t", Mode: 0o644}})
		})
	}
}

// TestStackEqualsInOrderWhereLayersRepeat compares stacks of few layers, each
// there more than once: builders put the layer of no files wherever an
// instruction has changed none.
func TestStackEqualsInOrderWhereLayersRepeat(t *testing.T) {
	layers := map[string][]entrytest.Item{
		"empty": {},
		"base": {
			{Name: "a/", Mode: 0o700, UID: 1, GID: 2},
			{Name: "a/b/", Mode: 0o2775, UID: 3},
			{Name: "a/b/f", Data: "low", Mode: 0o600, UID: 9},
			{Name: "f", Data: "f", Mode: 0o640},
			{Name: "usr/lib/l", Data: "l", Mode: 0o644},
			{Name: "lib", Kind: tar.TypeSymlink, Link: "usr/lib"},
		},
		"implies":  {{Name: "a/b/g", Data: "g", Mode: 0o644}, {Name: "lib/m", Data: "m", Mode: 0o644}},
		"removes":  {{Name: "a/.wh.b"}, {Name: ".wh.f"}, {Name: "usr/lib/.wh.l"}},
		"replaces": {{Name: "a", Data: "file", Mode: 0o644}, {Name: "f/", Mode: 0o755}, {Name: "f/x", Data: "x", Mode: 0o644}},
		"hides":    {{Name: "a/.wh..wh..opq"}, {Name: "a/n", Data: "n", Mode: 0o644}, {Name: ".wh.usr"}},
		"alone":    {{Name: ".wh..wh..opq"}, {Name: "a/alone", Data: "n", Mode: 0o644}},
		"new":      {{Name: "new/.wh.x"}, {Name: "new/.wh..wh..opq"}, {Name: "new/y", Data: "y", Mode: 0o644}},
		"lib":      {{Name: "lib/", Mode: 0o750}, {Name: "lib/.wh.l"}, {Name: "lib/o", Data: "o", Mode: 0o644}},
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
		link := []entrytest.Item{{Name: "h", Kind: tar.TypeLink, Link: "a/b/f"}, {Name: "lib/h", Kind: tar.TypeLink, Link: "f"}}
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
func (g generator) layer(dir string, depth int) []entrytest.Item {
	var all []entrytest.Item
	if depth > 0 && g.IntN(8) == 0 {
		all = append(all, entrytest.Item{Name: dir + entry.WhiteoutOpaque})
	}
	for _, n := range []string{"a", "b", "c"} {
		p := dir + n
		mode := int64(0o700 | g.IntN(0o100))
		switch g.IntN(9) {
		case 0, 1:
			all = append(all, entrytest.Item{Name: p, Data: fmt.Sprint(g.IntN(100)), Mode: mode, UID: g.IntN(4)})
		case 2:
			all = append(all, entrytest.Item{Name: p, Kind: tar.TypeSymlink, Link: []string{"a", "/b", "../c", "/a/b", "none"}[g.IntN(5)], UID: g.IntN(3)})
		case 3:
			all = append(all, entrytest.Item{Name: dir + entry.WhiteoutPrefix + n})
		case 4:
			if depth < 2 {
				all = append(all, entrytest.Item{Name: p + "/", Mode: mode, UID: g.IntN(4)})
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

// TestOpaqueMarkThroughALinkHidesAllBelow has a mark that the stacking of
// directories does not carry into what the layer itself has there.
func TestOpaqueMarkThroughALinkHidesAllBelow(t *testing.T) {
	layers := [][]entrytest.Item{
		{{Name: "usr/lib/d/old", Data: "old", Mode: 0o644}, {Name: "usr/lib/l", Data: "l", Mode: 0o644}, {Name: "lib", Kind: tar.TypeSymlink, Link: "usr/lib"}},
		{{Name: "lib/.wh..wh..opq"}, {Name: "lib/d/new", Data: "new", Mode: 0o644}},
	}
	ref := reference{root: t.TempDir()}
	if err := os.Chmod(ref.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		ref.own = l
		if err := ref.layer(l); err != nil {
			t.Fatal(err)
		}
	}
	compareWith(t, store(t, EROFS, entry.Limits{}), ref.root, false, layers)
}

func TestHardLinkToNothingIsRefused(t *testing.T) {
	both(t, func(t *testing.T, b Backend) {
		s := store(t, b, entry.Limits{})
		var diffIDs []digest.Digest
		for _, l := range [][]entrytest.Item{{{Name: "a", Data: "x"}}, {{Name: "h", Kind: tar.TypeLink, Link: "b"}}} {
			info, err := unpack(t, s, entrytest.Stream(t, l...))
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
	})
}

func TestManyLayersMount(t *testing.T) {
	for b, layers := range map[Backend]int{Directory: 200, EROFS: 600} {
		t.Run(string(b), func(t *testing.T) { mountMany(t, b, layers) })
	}
}

func mountMany(t *testing.T, b Backend, layers int) {
	s := store(t, b, entry.Limits{})
	var diffIDs []digest.Digest
	var want []string
	for n := range layers {
		f := fmt.Sprintf("f%03d", n)
		info, err := unpack(t, s, entrytest.Stream(t, entrytest.Item{Name: f, Data: f}))
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
	s := store(t, Directory, entry.Limits{})
	info, err := unpack(t, s, entrytest.Stream(t, entrytest.Item{Name: "a", Data: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	diffIDs := []digest.Digest{info.DiffID}
	for n := range 251 {
		info, err := unpack(t, s, entrytest.Stream(t, entrytest.Item{Name: fmt.Sprint("l", n), Kind: tar.TypeLink, Link: "a"}))
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
	view := filepath.Join(dir, ingestPrefix+"1", "view")
	if err := os.MkdirAll(view, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", view, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(view, "of a layer below"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err != nil {
		_ = unix.Unmount(view, unix.MNT_DETACH)
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ingestPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
