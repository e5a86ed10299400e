package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
)

// marked is a stream with a mark at each 256 KiB, which breaks at a place.
type marked struct {
	data   []byte
	at     int64
	breaks int64 // -1 for never
}

const markEvery = 256 << 10

var errBroken = fmt.Errorf("connection reset: %w", errs.Unavailable)

func (m *marked) Read(p []byte) (int, error) {
	if m.at == m.breaks {
		return 0, errBroken
	}
	end := int64(len(m.data))
	if m.breaks >= 0 {
		end = m.breaks
	}
	n := copy(p[:min(len(p), 100_000)], m.data[m.at:end])
	if m.at += int64(n); n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (m *marked) Close() error { return nil }

func (m *marked) Mark() (Mark, bool) {
	at := m.at / markEvery * markEvery
	return Mark{Offset: at, State: []byte(fmt.Sprint(at))}, at > 0
}

// opener opens a stream of data where it is told, and remembers where.
func opener(t *testing.T, data []byte, breaks int64, from *[]int64) func(Mark) (Stream, error) {
	return func(m Mark) (Stream, error) {
		*from = append(*from, m.Offset)
		if m.Offset > 0 && string(m.State) != fmt.Sprint(m.Offset) {
			t.Errorf("state %q at %d", m.State, m.Offset)
		}
		return &marked{data: data, at: m.Offset, breaks: breaks}, nil
	}
}

func bigLayer(t *testing.T) []byte {
	var items []entrytest.Item
	for n := range 50 {
		items = append(items, entrytest.Item{Name: fmt.Sprint("d/f", n), Data: strings.Repeat(fmt.Sprint(n), 40_000)})
	}
	return entrytest.Stream(t, items...)
}

func TestABrokenStreamIsResumedFromItsLastMarkByTheNextProcess(t *testing.T) {
	data, dir := bigLayer(t), t.TempDir()
	d, o := digest.FromBytes(data), Options{Backend: EROFS}
	var from []int64
	for _, breaks := range []int64{1_000_000, 2_000_001, -1} {
		s := reopen(t, dir, o)
		_, err := s.Unpack(t.Context(), d, opener(t, data, breaks, &from))
		if breaks >= 0 && !errors.Is(err, errBroken) || breaks < 0 && err != nil {
			t.Fatalf("breaks at %d: %v", breaks, err)
		}
		if breaks < 0 {
			if err := s.Verify(t.Context(), d); err != nil {
				t.Error(err)
			}
		}
	}
	if want := []int64{0, 3 * markEvery, 7 * markEvery}; fmt.Sprint(from) != fmt.Sprint(want) {
		t.Errorf("opened at %v, want %v", from, want)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "layers", ".[^u]*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWhatWasDamagedInABeginningIsFetchedAgain(t *testing.T) {
	data, o := bigLayer(t), Options{Backend: EROFS}
	d := digest.FromBytes(data)
	for what, damage := range map[string]func(dir string) error{
		"content": func(dir string) error { return overwrite(filepath.Join(dir, tarFile), 5_000, "damage") },
		"header":  func(dir string) error { return overwrite(filepath.Join(dir, tarFile), 0, strings.Repeat("x", 512)) },
		"cut":     func(dir string) error { return os.Truncate(filepath.Join(dir, tarFile), 700) },
		"journal": func(dir string) error {
			return eachMark(dir, func(p string) error { return os.WriteFile(p, []byte("no JSON"), 0o600) })
		},
		"lost": func(dir string) error { return eachMark(dir, os.Remove) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			var from []int64
			if _, err := reopen(t, dir, o).Unpack(t.Context(), d, opener(t, data, 1_500_000, &from)); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(dir, "layers", ".partial-"+name(d))); err != nil {
				t.Fatal(err)
			}
			s := reopen(t, dir, o)
			if _, err := s.Unpack(t.Context(), d, opener(t, data, -1, &from)); err != nil {
				t.Fatal(err)
			}
			if last := from[len(from)-1]; last != 0 {
				t.Errorf("opened at %v", from)
			}
			if err := s.Verify(t.Context(), d); err != nil {
				t.Error(err)
			}
		})
	}
}

func eachMark(dir string, do func(path string) error) error {
	return errors.Join(do(filepath.Join(dir, "journal.json")), do(filepath.Join(dir, "written")))
}

func TestALayerBeginsAnewWhereItsBlobHasNoSuchMark(t *testing.T) {
	data, dir := bigLayer(t), t.TempDir()
	s, d := reopen(t, dir, Options{Backend: EROFS}), digest.FromBytes(data)
	var from []int64
	if _, err := s.Unpack(t.Context(), d, opener(t, data, 1_500_000, &from)); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	other := opener(t, data, -1, &from) // the image was pushed with another compression
	if _, err := s.Unpack(t.Context(), d, func(m Mark) (Stream, error) {
		if m.Offset > 0 {
			return nil, fmt.Errorf("no mark in this blob: %w", errs.Unsupported)
		}
		return other(m)
	}); err != nil {
		t.Error(err)
	}
}

func overwrite(path string, at int64, with string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(with), at)
	return errors.Join(err, f.Close())
}

func TestNothingStaysOfAStreamThatIsWrong(t *testing.T) {
	data, dir := bigLayer(t), t.TempDir()
	s := reopen(t, dir, Options{Backend: EROFS})
	var from []int64
	if _, err := s.Unpack(t.Context(), digest.FromString("another"), opener(t, data, -1, &from)); err == nil {
		t.Error("wrong digest was taken")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "layers")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestBeginningsThatNobodyGoesOnFromAreSwept(t *testing.T) {
	data, dir := bigLayer(t), t.TempDir()
	s := reopen(t, dir, Options{Backend: EROFS})
	d := digest.FromBytes(data)
	var from []int64
	if _, err := s.Unpack(t.Context(), d, opener(t, data, 1_500_000, &from)); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	left := func() int {
		names, err := os.ReadDir(s.shelf.dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	unlock, err := s.locks.Lock(t.Context(), name(d))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(0); err != nil || left() != 1 {
		t.Errorf("while it is in use: %d, %v", left(), err)
	}
	unlock()
	if err := s.Sweep(time.Hour); err != nil || left() != 1 {
		t.Errorf("while it is young: %d, %v", left(), err)
	}
	if err := s.Sweep(0); err != nil || left() != 0 {
		t.Errorf("stays: %d, %v", left(), err)
	}
}

func TestCancellingEndsAnUnpacking(t *testing.T) {
	s := store(t, EROFS, Options{}.Limits)
	data := bigLayer(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Unpack(ctx, digest.FromBytes(data), func(Mark) (Stream, error) {
		cancel()
		return plain{bytes.NewReader(data)}, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
