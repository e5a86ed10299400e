package layer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/pkg/internal/mountpoint"
)

func low(t *testing.T) []byte {
	return entrytest.Stream(t, entrytest.Item{Name: "a/", Mode: 0o700, UID: 3}, entrytest.Item{Name: "a/f", Data: "low"}, entrytest.Item{Name: "b", Data: "b"})
}

func high(t *testing.T) []byte {
	return entrytest.Stream(t, entrytest.Item{Name: "a/.wh.f"}, entrytest.Item{Name: "a/g", Data: "high"})
}

// TestLayersOfBothFormsMakeOneImage unpacks one layer with either backend, the
// other with the next, and the image's last state with both.
func TestLayersOfBothFormsMakeOneImage(t *testing.T) {
	want := map[string]string(nil)
	for _, order := range [][]Backend{{Directory, Directory}, {EROFS, EROFS}, {Directory, EROFS}, {EROFS, Directory}} {
		dir := t.TempDir()
		var diffIDs []digest.Digest
		for n, data := range [][]byte{low(t), high(t)} {
			info, err := unpack(t, reopen(t, dir, Options{Backend: order[n]}), data)
			if err != nil {
				t.Fatal(err)
			}
			diffIDs = append(diffIDs, info.DiffID)
		}
		for _, b := range []Backend{Directory, EROFS} {
			got := describe(t, stacked(t, reopen(t, dir, Options{Backend: b}), diffIDs))
			if want == nil {
				want = got
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v, then %s: (-want +got):\n%s", order, b, diff)
			}
		}
	}
}

func TestAnImageOfEitherFormIsMountedAfterTheOtherIsChosen(t *testing.T) {
	for _, made := range []Backend{Directory, EROFS} {
		dir := t.TempDir()
		s := reopen(t, dir, Options{Backend: made})
		var diffIDs []digest.Digest
		for _, data := range [][]byte{low(t), high(t)} {
			info, err := unpack(t, s, data)
			if err != nil {
				t.Fatal(err)
			}
			diffIDs = append(diffIDs, info.DiffID)
		}
		stack, err := s.Stack(t.Context(), diffIDs, func(...digest.Digest) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, now := range []Backend{Directory, EROFS} {
			s := reopen(t, dir, Options{Backend: now})
			lower, err := s.Lower(t.Context(), stack)
			if err != nil {
				t.Fatalf("%s, then %s: %v", made, now, err)
			}
			there := func(dir string) bool {
				_, err := os.Lstat(filepath.Join(lower.Base, dir, "a/g"))
				return err == nil
			}
			if !slices.ContainsFunc(lower.Dirs, there) {
				t.Errorf("%s, then %s: not in %v", made, now, lower)
			}
		}
	}
}

// shown unpacks a layer and mounts the image of metadata that it is shown by.
func shown(t *testing.T, s *Store) (digest.Digest, []digest.Digest, Lower) {
	t.Helper()
	info, err := unpack(t, s, low(t))
	if err != nil {
		t.Fatal(err)
	}
	stack, err := s.Stack(t.Context(), []digest.Digest{info.DiffID}, func(...digest.Digest) {})
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.Lower(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	return info.DiffID, stack, lower
}

func TestTheMountOfAnImageIsSharedAndGoesWithIt(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir, Options{Backend: EROFS})
	diffID, stack, first := shown(t, s)
	again, err := reopen(t, dir, Options{Backend: EROFS}).Lower(t.Context(), stack)
	if err != nil || first.Base != again.Base || !mountpoint.Is(first.Base) {
		t.Errorf("%v, %v, %v", first, again, err)
	}
	held, err := os.Open(filepath.Join(first.Base, "b")) // as a container would
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, d := range []digest.Digest{stack[0], diffID} {
		rest, err := s.Discard(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if err := rest(); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := os.ReadDir(filepath.Join(dir, "mounts")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if b, err := io.ReadAll(held); err != nil || string(b) != "b" {
		t.Errorf("what is open reads %q, %v", b, err)
	}
}

func TestMountsOfImagesThatAreGoneAreSwept(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir, Options{Backend: EROFS})
	_, stack, lower := shown(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "layers", name(stack[0]))); err != nil { // killed before it took the mount away
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "mounts", ingestPrefix+"1", belowDir)
	if err := errors.Join(os.MkdirAll(probe, 0o700), unix.Mount("tmpfs", probe, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	reopen(t, dir, Options{Backend: EROFS})
	if names, err := os.ReadDir(filepath.Join(dir, "mounts")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if _, err := os.Lstat(lower.Base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stays: %v", err)
	}
}

func TestTarIsTheStreamAsItCame(t *testing.T) {
	data := append(low(t), make([]byte, 777)...) // an end that is no whole block
	s := reopen(t, t.TempDir(), Options{Backend: EROFS})
	info, err := unpack(t, s, data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Tar(t.Context(), info.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
	d := reopen(t, t.TempDir(), Options{Backend: Directory})
	if _, err := unpack(t, d, data); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Tar(t.Context(), info.DiffID); !errors.Is(err, errs.Unsupported) {
		t.Errorf("of a directory: %v", err)
	}
	if _, err := d.Tar(t.Context(), digest.FromString("absent")); !errors.Is(err, errs.NotFound) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestVerifyFindsEveryByteThatChanged(t *testing.T) {
	dir := t.TempDir()
	s := reopen(t, dir, Options{Backend: EROFS})
	sparse := entrytest.SparseStream(t, 5000, "2\n100\n1000\n4000\n3\n", bytes.Repeat([]byte("x"), 1003))
	var diffIDs []digest.Digest
	for _, data := range [][]byte{low(t), sparse} {
		info, err := unpack(t, s, data)
		if err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, info.DiffID)
	}
	stack, err := s.Stack(t.Context(), diffIDs, func(...digest.Digest) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		of   digest.Digest
		file string
		at   int64
	}{
		{diffIDs[0], tarFile, 0},
		{diffIDs[0], tarFile, 2048},
		{diffIDs[0], indexFile, 30},
		{diffIDs[1], tarFile, 4000},
		{diffIDs[1], spillFile, 4001},
		{stack[0], imageFile, 1500},
	} {
		if err := s.Verify(t.Context(), c.of); err != nil {
			t.Fatalf("%s before: %v", c.file, err)
		}
		path := filepath.Join(dir, "layers", name(c.of), c.file)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := overwrite(path, c.at, string(whole[c.at]^1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), c.of); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s at %d: %v", c.file, c.at, err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "layers", name(diffIDs[0]), tarFile)); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), diffIDs[0]); !errors.Is(err, ErrDamaged) || errors.Is(err, errs.NotFound) {
		t.Errorf("without its tar: %v", err)
	}
}
