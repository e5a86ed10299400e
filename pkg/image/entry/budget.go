package entry

import (
	"archive/tar"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
)

// noteCost is what is remembered of an entry beside its name.
const noteCost = 64

// Limits bounds what one layer may unpack to. A zero field means the default.
type Limits struct {
	Bytes   int64 // of file content, sparse or not; default 512 GiB
	Entries int64 // of the tar stream, and directories that it implies; default 16 million
	Names   int64 // bytes of memory for what is remembered of entries until the end; default 32 MiB
}

// WithDefaults returns l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 512 << 30
	}
	if l.Entries == 0 {
		l.Entries = 16 << 20
	}
	if l.Names == 0 {
		l.Names = 32 << 20 // some 200,000 directories
	}
	return l
}

// Budget holds what one stream makes, on disk and in memory, to the limits.
type Budget struct {
	Limits         Limits
	Bytes, Entries int64 // taken so far
	names          int64
}

// Count takes an entry of the stream, before anything of it is written.
func (b *Budget) Count(h *tar.Header) error {
	if err := b.Entry(); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return nil
	}
	if h.Size < 0 || h.Size > b.Limits.Bytes-b.Bytes {
		return fmt.Errorf("layer unpacks to more than %d bytes: %w", b.Limits.Bytes, errs.Invalid)
	}
	b.Bytes += h.Size
	return nil
}

// Entry takes one file or directory, listed or implied: one long name implies
// thousands.
func (b *Budget) Entry() error {
	if b.Entries++; b.Entries > b.Limits.Entries {
		return fmt.Errorf("layer has more than %d entries: %w", b.Limits.Entries, errs.Invalid)
	}
	return nil
}

// Note takes names that are kept in memory until the stream's end.
func (b *Budget) Note(names ...string) error {
	for _, n := range names {
		b.names += noteCost + int64(len(n))
	}
	if b.names > b.Limits.Names {
		return fmt.Errorf("layer has too many directories and links to remember: %w", errs.Invalid)
	}
	return nil
}
