package layer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/pkg/internal/mountpoint"
)

// put unpacks a layer.
func put(t *testing.T, s *Store, entries ...entrytest.Item) Info {
	t.Helper()
	info, err := unpack(t, s, entrytest.Stream(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestWhatIsUnpackedVerifies has streams in which later entries take away what
// earlier ones have made: the sum is of what is left.
func TestWhatIsUnpackedVerifies(t *testing.T) {
	for name, entries := range map[string][]entrytest.Item{
		"plain":             {{Name: "d/"}, {Name: "d/a", Data: "a"}, {Name: "b", Data: strings.Repeat("b", 1<<20)}, {Name: "empty"}, {Name: "l", Kind: '2', Link: "d/a"}},
		"implied":           {{Name: "x/y/z/a", Data: "a"}},
		"hard link":         {{Name: "a", Data: "a"}, {Name: "b", Kind: '1', Link: "a"}},
		"link below":        {{Name: "b", Kind: '1', Link: "not/here"}},
		"whiteouts":         {{Name: "d/"}, {Name: "d/.wh..wh..opq"}, {Name: ".wh.gone"}, {Name: "d/a", Data: "a"}},
		"file again":        {{Name: "a", Data: "first"}, {Name: "a", Data: "second"}},
		"file for tree":     {{Name: "d/"}, {Name: "d/a", Data: "a"}, {Name: "d", Data: "now a file"}},
		"tree for file":     {{Name: "d", Data: "a file"}, {Name: "d/"}, {Name: "d/a", Data: "a"}},
		"link for file":     {{Name: "a", Data: "a"}, {Name: "b", Data: "b"}, {Name: "b", Kind: '1', Link: "a"}},
		"linked then again": {{Name: "a", Data: "a"}, {Name: "b", Kind: '1', Link: "a"}, {Name: "a", Data: "A"}},
		"aufs link targets": {{Name: ".wh..wh.plnk/1", Data: "a"}, {Name: "a", Kind: '1', Link: ".wh..wh.plnk/1"}},
		"through a link":    {{Name: "usr/lib/"}, {Name: "lib", Kind: '2', Link: "usr/lib"}, {Name: "lib/a", Data: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, b Backend) {
				s := store(t, b, entry.Limits{})
				info := put(t, s, entries...)
				if b == Directory && info.Total == nil {
					t.Fatal("it has no sum")
				}
				if err := s.Verify(t.Context(), info.DiffID); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	for what, damage := range map[string]func(dir string) error{
		"empty file":     func(dir string) error { return os.Truncate(dir+"/fs/a", 0) },
		"zeros":          func(dir string) error { return os.WriteFile(dir+"/fs/a", make([]byte, 4), 0o600) },
		"lost file":      func(dir string) error { return os.Remove(dir + "/fs/a") },
		"lost directory": func(dir string) error { return os.Remove(dir + "/fs/d") },
		"lost whiteout":  func(dir string) error { return os.Remove(dir + "/fs/w") },
		"one file more":  func(dir string) error { return os.WriteFile(dir+"/fs/more", nil, 0o600) },
		"no tree":        func(dir string) error { return os.RemoveAll(dir + "/fs") },
		"no record":      func(dir string) error { return os.Remove(dir + "/layer.json") },
		"torn record":    func(dir string) error { return os.Truncate(dir+"/layer.json", 9) },
	} {
		t.Run(what, func(t *testing.T) {
			s := store(t, Directory, entry.Limits{})
			d := put(t, s, entrytest.Item{Name: "a", Data: "text"}, entrytest.Item{Name: "d/"}, entrytest.Item{Name: ".wh.w"}).DiffID
			if err := damage(filepath.Join(s.dir, name(d))); err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(t.Context(), d); !errors.Is(err, ErrDamaged) {
				t.Errorf("verified: %v", err)
			}
			if err := s.Quarantine(t.Context(), d); err != nil || s.Has(d) {
				t.Errorf("set aside: %v", err)
			}
			if err := s.Verify(t.Context(), d); !errors.Is(err, errs.NotFound) {
				t.Errorf("set aside, and verified: %v", err)
			}
			if aside, err := s.ListDamaged(); err != nil || len(aside) != 1 || aside[0].DiffID != d {
				t.Errorf("set aside: %v, %v", aside, err)
			}
		})
	}
}

// TestSuspectsAreWhatWasWrittenSinceTheLastCleanStop opens the store as a later
// kernel would.
func TestSuspectsAreWhatWasWrittenSinceTheLastCleanStop(t *testing.T) {
	s := store(t, Directory, entry.Limits{})
	put(t, s, entrytest.Item{Name: "early"})
	if err := s.Close(nil); err != nil {
		t.Fatal(err)
	}
	late := put(t, s, entrytest.Item{Name: "late"}).DiffID
	gone := put(t, s, entrytest.Item{Name: "gone"}).DiffID
	rest, err := s.Discard(t.Context(), gone)
	if err == nil {
		err = rest()
	}
	if err != nil {
		t.Fatal(err)
	}
	boots, err := os.ReadDir(filepath.Join(s.dir, marksDir))
	if err != nil || len(boots) != 1 {
		t.Fatalf("%v, %v", boots, err)
	}
	if err := os.Rename(filepath.Join(s.dir, marksDir, boots[0].Name()), filepath.Join(s.dir, marksDir, "earlier")); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(s.dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := s.Suspects(); len(got) != 1 || got[0] != late {
		t.Errorf("suspects: %v", got)
	}
	if err := s.Trust(late); err != nil || len(s.Suspects()) != 0 {
		t.Errorf("trusted: %v, %v", s.Suspects(), err)
	}
}

// TestImagesOutliveTheDamageOfWhatTheyShow damages the layer of a mounted EROFS
// image, and then the image.
func TestImagesOutliveTheDamageOfWhatTheyShow(t *testing.T) {
	s := store(t, EROFS, entry.Limits{})
	info := put(t, s, entrytest.Item{Name: "f", Data: "text"})
	show := func() (string, []digest.Digest) {
		t.Helper()
		stack, err := s.Stack(t.Context(), []digest.Digest{info.DiffID}, func(...digest.Digest) {})
		if err != nil || !s.Stacked(stack) {
			t.Fatal(stack, err)
		}
		lower, err := s.Lower(t.Context(), stack)
		if err != nil {
			t.Fatal(err)
		}
		return lower.Base, stack
	}
	base, stack := show()
	held, err := os.Open(filepath.Join(base, "f")) // as a container would
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, c := range []struct {
		of   digest.Digest
		file string
	}{{info.DiffID, tarFile}, {stack[0], imageFile}} {
		if err := overwrite(filepath.Join(s.shelf.dir, name(c.of), c.file), 512, "T"); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), c.of); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.file, err)
		}
		if err := s.Quarantine(t.Context(), c.of); err != nil || mountpoint.Is(base) || s.Stacked(stack) {
			t.Errorf("%s: set aside, and still there: %v", c.file, err)
		}
		if b := make([]byte, 4); c.file == imageFile {
			if _, err := held.ReadAt(b, 0); err != nil {
				t.Errorf("what is open: %v", err)
			}
		}
		if c.of == info.DiffID {
			put(t, s, entrytest.Item{Name: "f", Data: "text"})
		}
		if again, _ := show(); again != base {
			t.Errorf("%s: mounted at %s, was %s", c.file, again, base)
		}
		if b, err := os.ReadFile(filepath.Join(base, "f")); err != nil || string(b) != "text" {
			t.Errorf("%s: made again: %q, %v", c.file, b, err)
		}
	}
}

func TestADamagedImageIsMadeAgainWhereItCannotBeMounted(t *testing.T) {
	s := store(t, EROFS, entry.Limits{})
	info := put(t, s, entrytest.Item{Name: "f", Data: "text"})
	stack, err := s.Stack(t.Context(), []digest.Digest{info.DiffID}, func(...digest.Digest) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := overwrite(filepath.Join(s.shelf.dir, name(stack[0]), imageFile), 1024, "no superblock"); err != nil {
		t.Fatal(err)
	}
	lower, err := s.Lower(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(lower.Base, "f")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}
