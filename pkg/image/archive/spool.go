// Package archive reads and writes the files that images travel in: tar archives
// with an OCI image layout in them, or with what `docker save` writes.
//
// A Spool is an archive that was read: its entries come in any order, so they are
// laid out in a directory first. A Writer makes one in one pass. Neither knows what
// an image is made of; nothing is verified here but what the writer is given to
// verify.
package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/internal/room"
)

const (
	maxSpooled  = 100_000 // entries of an archive
	spoolPrefix = ".load-"
)

// Spool is an archive laid out in a directory under names of our own, since its
// entries come in any order. Names of the archive are keys of a map and never
// paths.
type Spool struct {
	dir   string
	files map[string]string // name in the archive → file
	links map[string]string // name in the archive → name in the archive
}

// Sweep removes what spools below dir have left that nobody removed.
func Sweep(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, spoolPrefix+"*"))
	if err != nil {
		return err
	}
	for _, spool := range old {
		if err := os.RemoveAll(spool); err != nil {
			return fmt.Errorf("sweep archives: %w", err)
		}
	}
	return nil
}

// Read lays an archive, compressed or not, out in a directory below parent. The
// caller removes it.
func Read(ctx context.Context, parent string, decoders *inflate.Pool, r io.Reader) (*Spool, error) {
	plain, err := decoders.Stream(ctx, blob.ContextReader(ctx, r))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	dir, err := os.MkdirTemp(parent, spoolPrefix)
	if err != nil {
		return nil, err
	}
	sp := &Spool{dir: dir, files: map[string]string{}, links: map[string]string{}}
	if err := sp.fill(plain); err != nil {
		sp.Remove()
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return sp, nil
}

// Remove removes what was laid out.
func (sp *Spool) Remove() { _ = os.RemoveAll(sp.dir) } // Sweep finds what stays

func (sp *Spool) fill(r io.Reader) error {
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: not an image archive: %w", err, errs.Invalid)
		}
		if err != nil {
			return err
		}
		if n > maxSpooled {
			return fmt.Errorf("more than %d entries: %w", maxSpooled, errs.Invalid)
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		switch h.Typeflag {
		case tar.TypeReg:
			if err := sp.write(name, n, t, h.Size); err != nil {
				return err
			}
		case tar.TypeSymlink: // older `docker save` links equal layers
			sp.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			sp.links[name] = path.Clean(strings.TrimPrefix(h.Linkname, "/"))
		}
	}
}

func (sp *Spool) write(name string, n int, r io.Reader, size int64) error {
	p := filepath.Join(sp.dir, strconv.Itoa(n))
	f, err := os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	written, err := io.Copy(f, r)
	sp.files[name] = p
	return errors.Join(room.Explain(err, p, size-written), f.Close())
}

// open opens a file of the archive by its name there.
func (sp *Spool) open(name string) (*os.File, error) {
	p, ok := sp.files[name]
	for hops := 0; !ok && hops < 8; hops++ {
		next, linked := sp.links[name]
		if !linked {
			break
		}
		name = next
		p, ok = sp.files[name]
	}
	if !ok {
		return nil, fmt.Errorf("archive has no %.200q: %w", name, errs.Invalid)
	}
	return os.Open(p)
}

// Open opens a file of the archive from an offset on.
func (sp *Spool) Open(name string, offset int64) (*os.File, error) {
	f, err := sp.open(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Has reports whether the archive has a file.
func (sp *Spool) Has(name string) bool {
	_, file := sp.files[name]
	_, link := sp.links[name]
	return file || link
}

// ReadAll reads a file of the archive that has at most limit bytes.
func (sp *Spool) ReadAll(name string, limit int64) ([]byte, error) {
	f, err := sp.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%.200q has more than %d bytes: %w", name, limit, errs.Invalid)
	}
	return data, err
}
