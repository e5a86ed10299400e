package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
)

const mib = 1 << 20

var errBroken = fmt.Errorf("connection reset: %w", errs.Unavailable)

// large is more than some marks lie apart.
func large() []byte {
	data := make([]byte, 5*mib+7)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data) // never fails
	return data
}

// remote gives data and breaks after so many bytes of it, -1 for never; it remembers
// from where it was read.
type remote struct {
	data   []byte
	breaks int
	from   []int64
}

func (r *remote) open(offset int64) (io.ReadCloser, error) {
	r.from = append(r.from, offset)
	if r.breaks < 0 {
		return io.NopCloser(bytes.NewReader(r.data[offset:])), nil
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(r.data[offset:r.breaks]), iotest.ErrReader(errBroken))), nil
}

func ingest(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestABlobIsGoneOnWithByTheNextProcess(t *testing.T) {
	dir := t.TempDir()
	r := &remote{data: large()}
	d := digest.FromBytes(r.data)
	for _, breaks := range []int{2*mib + mib/2, 4*mib + mib/2, -1} {
		r.breaks = breaks
		err := open(t, dir).Bring(t.Context(), d, int64(len(r.data)), r.open)
		if breaks >= 0 && !errors.Is(err, errBroken) || breaks < 0 && err != nil {
			t.Fatalf("breaks at %d: %v", breaks, err)
		}
	}
	if want := []int64{0, 2 * mib, 4 * mib}; fmt.Sprint(r.from) != fmt.Sprint(want) {
		t.Errorf("opened at %v, want %v", r.from, want)
	}
	if err := open(t, dir).Verify(t.Context(), d); err != nil || len(ingest(t, dir)) != 0 {
		t.Errorf("%v; left: %v", err, ingest(t, dir))
	}
}

func TestADamagedBeginningOfABlobIsFetchedAgain(t *testing.T) {
	for what, damage := range map[string]func(p string) error{
		"content": func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("damage"), mib)
			return errors.Join(err, f.Close())
		},
		"cut":   func(p string) error { return os.Truncate(p, mib) },
		"empty": os.Remove,
	} {
		dir := t.TempDir()
		r := &remote{data: large(), breaks: 3 * mib}
		d := digest.FromBytes(r.data)
		if err := open(t, dir).Bring(t.Context(), d, int64(len(r.data)), r.open); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		if err := damage(filepath.Join(dir, "ingest", ingest(t, dir)[0].Name(), "data")); err != nil {
			t.Fatal(err)
		}
		r.breaks = -1
		s := open(t, dir)
		if err := s.Bring(t.Context(), d, int64(len(r.data)), r.open); err != nil || r.from[len(r.from)-1] != 0 {
			t.Errorf("%s: opened at %v: %v", what, r.from, err)
		}
		if err := s.Verify(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingStaysOfABlobThatIsWrong(t *testing.T) {
	data := large()
	bad := bytes.Clone(data)
	bad[2*mib] ^= 1
	for what, c := range map[string]struct {
		data []byte
		size int64
	}{"wrong": {bad, int64(len(data))}, "too long": {append(bytes.Clone(data), 1), int64(len(data))}, "no size": {bad, -1}} {
		dir := t.TempDir()
		r := &remote{data: c.data, breaks: -1}
		if err := open(t, dir).Bring(t.Context(), digest.FromBytes(data), c.size, r.open); !errors.Is(err, blob.ErrMismatch) || len(r.from) != 1 {
			t.Errorf("%s: opened at %v: %v", what, r.from, err)
		}
		if left := ingest(t, dir); len(left) != 0 {
			t.Errorf("%s: left: %v", what, left)
		}
	}
}

func TestABodyThatIsAlwaysShortEndsABring(t *testing.T) {
	dir := t.TempDir()
	data := large()
	r := &remote{data: data[:3*mib], breaks: -1}
	for range 2 {
		err := open(t, dir).Bring(t.Context(), digest.FromBytes(data), int64(len(data)), r.open)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
	if fmt.Sprint(r.from) != fmt.Sprint([]int64{0, 3 * mib}) {
		t.Errorf("opened at %v", r.from)
	}
}

func TestBeginningsOfBlobsAreSweptUnlessTheyGoOn(t *testing.T) {
	dir := t.TempDir()
	r := &remote{data: large(), breaks: 3 * mib}
	d := digest.FromBytes(r.data)
	s := open(t, dir)
	if err := s.Bring(t.Context(), d, int64(len(r.data)), r.open); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	w, err := s.Continue(t.Context(), d, int64(len(r.data)))
	if err != nil || !w.Resumed() {
		t.Fatal(err)
	}
	if err := errors.Join(s.Sweep(0), s.Forget(d)); err != nil || len(ingest(t, dir)) != 1 {
		t.Errorf("while it goes on: %v, %v", ingest(t, dir), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(time.Hour); err != nil || len(ingest(t, dir)) != 1 {
		t.Errorf("while it is young: %v, %v", ingest(t, dir), err)
	}
	if err := s.Sweep(0); err != nil || len(ingest(t, dir)) != 0 {
		t.Errorf("stays: %v, %v", ingest(t, dir), err)
	}
}
