package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/tree"
)

// Tar returns the tar stream of a layer, byte for byte as it came, and verifies it:
// its end is reached only if its digest was right. The error is of kind NotFound
// where the layer is absent, and of kind Unsupported where it is kept as a
// directory, which has forgotten its stream.
func (s shelf) Tar(ctx context.Context, diffID digest.Digest) (io.ReadCloser, error) {
	info, err := s.read(diffID, tarRecord)
	if err != nil {
		if s.has(diffID, treeRecord) {
			return nil, fmt.Errorf("layer %s is kept as a directory, without its tar stream: %w", diffID, errs.Unsupported)
		}
		return nil, err
	}
	f, err := os.Open(filepath.Join(s.dir, name(diffID), tarFile))
	if err != nil {
		return nil, err
	}
	v := blob.NewVerifier(blob.ContextReader(ctx, io.LimitReader(f, info.Tar)), diffID, info.Tar)
	return struct {
		io.Reader
		io.Closer
	}{v, f}, nil
}

// Verify reads every byte of a layer again. The error wraps blob.ErrMismatch where
// they are not what they were; it is of kind NotFound where the layer is absent or
// files of it are missing, and of kind Unsupported for directories, of which
// nothing is known but what they are.
func (s *Store) Verify(ctx context.Context, diffID digest.Digest) error {
	p, err := s.path(diffID)
	if err != nil {
		return err
	}
	if info, err := s.read(diffID, imageRecord); err == nil {
		return s.verifyImage(ctx, info, filepath.Join(p, imageFile))
	}
	r, err := s.Tar(ctx, diffID)
	if err != nil {
		return missing(err)
	}
	defer r.Close()
	x, err := again(diffID, r, s.options.Limits)
	if err != nil {
		return err
	}
	index, err := os.ReadFile(filepath.Join(p, indexFile))
	if err != nil {
		return missing(err)
	}
	if !bytes.Equal(index, x.Encode()) {
		return fmt.Errorf("index of layer %s: %w", diffID, blob.ErrMismatch)
	}
	return s.verifySpill(ctx, diffID, x)
}

// again reads a whole tar stream as ingest did.
func again(diffID digest.Digest, r io.Reader, limits entry.Limits) (*tree.Index, error) {
	b := newBelt(diffID, limits, func(error) {})
	err := b.carry(r, nil)
	x, ended := b.end(err == nil)
	if err == nil {
		err = ended
	}
	if errs.Of(err) == errs.Invalid && !errors.Is(err, blob.ErrMismatch) {
		err = fmt.Errorf("layer %s: %w: %w", diffID, err, blob.ErrMismatch)
	}
	return x, err
}

// verifySpill compares a layer's spill with what its tar says.
func (s shelf) verifySpill(ctx context.Context, diffID digest.Digest, x *tree.Index) error {
	if x.Spilled() == 0 {
		return nil
	}
	p := filepath.Join(s.dir, name(diffID))
	f, err := os.Open(filepath.Join(p, spillFile))
	if err != nil {
		return missing(err)
	}
	defer f.Close()
	t, err := os.Open(filepath.Join(p, tarFile))
	if err != nil {
		return missing(err)
	}
	defer t.Close()
	if st, err := f.Stat(); err != nil || st.Size() != x.Spilled() {
		return fmt.Errorf("spill of layer %s: %w", diffID, blob.ErrMismatch)
	}
	return x.Spill(comparer{ctx, f}, t)
}

// comparer takes only what is there already.
type comparer struct {
	ctx context.Context //nolint:containedctx // the writer is the call
	r   io.ReaderAt
}

func (c comparer) WriteAt(p []byte, at int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	got := make([]byte, len(p))
	if _, err := c.r.ReadAt(got, at); err != nil && err != io.EOF {
		return 0, err
	}
	if !bytes.Equal(got, p) {
		return 0, fmt.Errorf("spill at %d: %w", at, blob.ErrMismatch)
	}
	return len(p), nil
}

func (s shelf) verifyImage(ctx context.Context, info Info, path string) error {
	if err := blob.Validate(info.Sum); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return missing(err)
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, blob.NewVerifier(blob.ContextReader(ctx, f), info.Sum, info.Stored))
	return err
}

// missing gives the error of a missing file its kind.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) && errs.Of(err) == "" {
		return fmt.Errorf("%w: %w", err, errs.NotFound)
	}
	return err
}

// protect has the file system refuse to read the file other than it is now. It is
// best effort: few file systems have fs-verity switched on.
func protect(path string, on bool) {
	if !on {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: 1 /* SHA-256 */, Block_size: 4096}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
}
