package directory

import (
	"context"
	"fmt"
	"io"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/entry"
)

// maxTail bounds what may follow the end of an archive: padding.
const maxTail = 64 << 20

var errWhiteout = fmt.Errorf("archive has whiteouts, which only layers of images may have: %w", errs.Invalid)

// Extract unpacks a tar stream that is not a layer below dir, which is there and
// which nobody else changes meanwhile, and reads the stream to its end. It is as
// careful as Unpack: nothing outside of dir is touched. A whiteout has nothing to
// hide here and is refused. What it made before it failed stays.
func Extract(ctx context.Context, dir string, limits entry.Limits, r io.Reader) (bytes, inodes int64, err error) {
	t, err := openTree(dir, limits.WithDefaults())
	if err != nil {
		return 0, 0, err
	}
	defer t.close()
	t.plain = true
	r = blob.ContextReader(ctx, r)
	u := unpacker{tree: t}
	if err := u.run(r); err != nil {
		return 0, 0, err
	}
	if _, links := t.open(); len(links) > 0 {
		return 0, 0, fmt.Errorf("hard link %.200q leads to %.200q, which the archive does not have: %w", links[0].Path, links[0].Target, errs.Invalid)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxTail))
	if err == nil && n == maxTail {
		err = fmt.Errorf("more than %d bytes after the archive's end: %w", maxTail, errs.Invalid)
	}
	return t.budget.Bytes, t.budget.Entries, err
}
