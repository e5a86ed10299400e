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
	"github.com/berth-run/berth/pkg/image/belt"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/pkg/image/treesum"
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

// Verify reads every byte of a layer again, in all of its forms. The error is
// ErrDamaged where something is not what it was or is missing, and of kind NotFound
// where there is no such layer. A tar stream is compared with its digest; a directory
// cannot give its stream back, and is compared with what its tree added up to when it
// was made.
func (s *Store) Verify(ctx context.Context, diffID digest.Digest) error {
	p, err := s.path(diffID)
	if err != nil {
		return err
	}
	err = verifier{s.shelf, s.options.Limits}.verify(ctx, diffID, p)
	if _, gone := os.Lstat(p); errors.Is(gone, fs.ErrNotExist) { // perhaps meanwhile
		return fmt.Errorf("layer %s: %w", diffID, errs.NotFound)
	}
	if err != nil {
		return fmt.Errorf("verify layer %s: %w", diffID, damage(err))
	}
	return nil
}

// verifier reads what is on a shelf.
type verifier struct {
	shelf
	limits entry.Limits
}

func (s verifier) verify(ctx context.Context, diffID digest.Digest, p string) error {
	forms := 0
	for record, verify := range map[string]func(context.Context, Info, string) error{
		treeRecord: s.verifyTree, tarRecord: s.verifyTar, imageRecord: s.verifyImage,
	} {
		if _, err := os.Lstat(filepath.Join(p, record)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		forms++
		info, err := s.read(diffID, record)
		if err == nil {
			err = verify(ctx, info, p)
		}
		if err != nil {
			return err
		}
	}
	if forms == 0 {
		return fmt.Errorf("%w: it has no record", ErrDamaged)
	}
	return nil
}

func (s verifier) verifyTree(ctx context.Context, info Info, p string) error {
	if info.Total == nil { // unpacked by an earlier Berth
		return nil
	}
	got, err := treesum.Of(ctx, filepath.Join(p, treeDir))
	if err != nil {
		return err
	}
	if diff := info.Total.Diff(got); diff != "" {
		return fmt.Errorf("%w: it %s", ErrDamaged, diff)
	}
	return nil
}

func (s verifier) verifyTar(ctx context.Context, info Info, p string) error {
	forget(filepath.Join(p, tarFile))
	r, err := s.Tar(ctx, info.DiffID)
	if err != nil {
		return err
	}
	defer r.Close()
	x, err := belt.Read(info.DiffID, r, s.limits)
	if err != nil {
		return err
	}
	forget(filepath.Join(p, indexFile))
	index, err := os.ReadFile(filepath.Join(p, indexFile))
	if err != nil {
		return err
	}
	if !bytes.Equal(index, x.Encode()) {
		return fmt.Errorf("index of layer %s: %w", info.DiffID, blob.ErrMismatch)
	}
	return s.verifySpill(ctx, info.DiffID, x)
}

// forget has the kernel read a file from the disk again: else memory answers for it.
// It is best effort.
func forget(path string) {
	if f, err := os.Open(path); err == nil {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		_ = f.Close() // read only
	}
}

// verifySpill compares a layer's spill with what its tar says.
func (s shelf) verifySpill(ctx context.Context, diffID digest.Digest, x *tree.Index) error {
	if x.Spilled() == 0 {
		return nil
	}
	p := filepath.Join(s.dir, name(diffID))
	forget(filepath.Join(p, spillFile))
	f, err := os.Open(filepath.Join(p, spillFile))
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := os.Open(filepath.Join(p, tarFile))
	if err != nil {
		return err
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

func (s shelf) verifyImage(ctx context.Context, info Info, p string) error {
	if err := blob.Validate(info.Sum); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	path := filepath.Join(p, imageFile)
	forget(path)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, blob.NewVerifier(blob.ContextReader(ctx, f), info.Sum, info.Stored))
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
