package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// ErrDamaged says that a layer is not what was put here. It is of kind Invalid.
var ErrDamaged = fmt.Errorf("layer is damaged: %w", errs.Invalid)

const (
	marksDir      = ".unclean"
	damagedPrefix = ".damaged-"
)

// damage tells what a disk has lost from the errors of a moment. What is missing of a
// layer that is here is damage, and not of kind NotFound.
func damage(err error) error {
	if errors.Is(err, errs.NotFound) {
		return fmt.Errorf("%w: %s", ErrDamaged, err.Error())
	}
	for _, e := range []error{blob.ErrMismatch, io.ErrUnexpectedEOF, unix.EIO, unix.EUCLEAN, unix.EBADMSG, unix.ENOTDIR, fs.ErrNotExist} {
		if errors.Is(err, e) && !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return err
}

// Suspects returns the layers that were written before the machine last stopped
// uncleanly, and that nobody has trusted since.
func (s *Store) Suspects() []digest.Digest {
	var all []digest.Digest
	for _, n := range s.marks.Suspects() {
		if d, ok := digestOf(n); ok {
			all = append(all, d)
			continue
		}
		_ = s.marks.Trust(n) // no layer of this store; one that stays is no harm
	}
	return all
}

// Trust says that a suspect has been verified.
func (s *Store) Trust(diffID digest.Digest) error { return s.marks.Trust(name(diffID)) }

// Damaged is a layer that Quarantine has set aside.
type Damaged struct {
	DiffID digest.Digest
	Path   string
	Since  time.Time
}

// Quarantine takes a damaged layer its name: it is absent then, and made again when
// an image needs it. Images that show files of it are unmounted; root file systems
// that show it go on showing it. That it is absent is no error.
func (s *Store) Quarantine(ctx context.Context, diffID digest.Digest) error {
	p, err := s.path(diffID)
	if err != nil {
		return err
	}
	unlock, err := s.locks.Lock(ctx, name(diffID))
	if err != nil {
		return err
	}
	defer unlock()
	unmounted := s.mounts.each(func(id digest.Digest) bool { return id == diffID || slices.Contains(s.needs(id), diffID) })
	return errors.Join(unmounted, s.keepAside(diffID, p), s.marks.Forget(name(diffID)), statefile.SyncDir(s.dir))
}

// keepAside renames a layer to the first free name of those for damaged ones.
func (s shelf) keepAside(diffID digest.Digest, p string) error {
	for n := 1; ; n++ {
		aside := filepath.Join(s.dir, damagedPrefix+name(diffID)+"."+strconv.Itoa(n))
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		err := os.Rename(p, aside)
		switch {
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // without a record it is no layer either
			return unrecord(p)
		case errors.Is(err, fs.ErrNotExist):
			return nil
		}
		return err
	}
}

// ListDamaged returns what Quarantine has set aside.
func (s shelf) ListDamaged() ([]Damaged, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []Damaged
	for _, n := range names {
		rest, ok := strings.CutPrefix(n.Name(), damagedPrefix)
		rest, _, _ = strings.Cut(rest, ".")
		d, valid := digestOf(rest)
		var st unix.Stat_t
		p := filepath.Join(s.dir, n.Name())
		if !ok || !valid || unix.Lstat(p, &st) != nil {
			continue
		}
		all = append(all, Damaged{DiffID: d, Path: p, Since: time.Unix(st.Ctim.Unix())})
	}
	return all, nil
}

// RemoveDamaged removes what Quarantine has set aside. The caller knows that
// nothing mounts it.
func (s shelf) RemoveDamaged(d Damaged) error { return os.RemoveAll(d.Path) }
