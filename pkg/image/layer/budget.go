package layer

import (
	"archive/tar"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
)

// noteCost is what is remembered of an entry beside its name.
const noteCost = 64

// budget holds what one stream makes, on disk and in memory, to the limits.
type budget struct {
	limits                Limits
	bytes, entries, names int64
}

// count takes an entry of the stream, before anything of it is written.
func (b *budget) count(h *tar.Header) error {
	if err := b.entry(); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return nil
	}
	if h.Size < 0 || h.Size > b.limits.Bytes-b.bytes {
		return fmt.Errorf("layer unpacks to more than %d bytes: %w", b.limits.Bytes, errs.Invalid)
	}
	b.bytes += h.Size
	return nil
}

// entry takes one file or directory, listed or implied: one long name implies
// thousands.
func (b *budget) entry() error {
	if b.entries++; b.entries > b.limits.Entries {
		return fmt.Errorf("layer has more than %d entries: %w", b.limits.Entries, errs.Invalid)
	}
	return nil
}

// note takes names that are kept in memory until the stream's end.
func (b *budget) note(names ...string) error {
	for _, n := range names {
		b.names += noteCost + int64(len(n))
	}
	if b.names > b.limits.Names {
		return fmt.Errorf("layer has too many directories and links to remember: %w", errs.Invalid)
	}
	return nil
}
