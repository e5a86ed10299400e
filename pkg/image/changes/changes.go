// Package changes turns what a container has written over its image, the upper
// directory of an overlay, into a layer's tar stream, and back.
//
// Write reads a directory that nobody changes meanwhile. Apply takes a stream that
// is an attacker's: it is unpacked as a layer is, with no devices in it, and must
// list each directory that it has something in.
package changes

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// Extended attributes of overlay that are not made here.
const (
	redirect = "trusted.overlay.redirect"
	metacopy = "trusted.overlay.metacopy"
)

// Write writes the upper directory dir to w.
func Write(ctx context.Context, dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	p := packer{ctx: ctx, root: root, tar: tar.NewWriter(w), seen: map[uint64]string{}}
	if err := p.entry("."); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	return p.tar.Close()
}

type packer struct {
	ctx  context.Context
	root *os.Root
	tar  *tar.Writer
	seen map[uint64]string // inode with several names → its first
}

func (p *packer) entry(name string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	info, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil // whoever listens makes it anew
	case unix.S_IFBLK:
		return fmt.Errorf("%s is a device: %w", name, errs.Unsupported)
	case unix.S_IFCHR:
		if st.Rdev != 0 {
			return fmt.Errorf("%s is a device: %w", name, errs.Unsupported)
		}
		return p.mark(path.Join(path.Dir(name), entry.WhiteoutPrefix+path.Base(name)))
	}
	h, err := p.header(name, info)
	if err != nil {
		return err
	}
	if first := p.seen[st.Ino]; first != "" && !info.IsDir() {
		h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		return p.tar.WriteHeader(h)
	}
	if st.Nlink > 1 {
		p.seen[st.Ino] = name
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return p.directory(name)
	case info.Mode().IsRegular():
		return p.content(name, info.Size())
	}
	return nil
}

// mark writes an entry that says something by its name.
func (p *packer) mark(name string) error {
	return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Format: tar.FormatPAX})
}

func (p *packer) header(name string, info fs.FileInfo) (*tar.Header, error) {
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		var err error
		if target, err = p.root.Readlink(name); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, err
	}
	h.Name, h.Format, h.Uname, h.Gname = name, tar.FormatPAX, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return h, nil
	}
	h.PAXRecords, err = p.attributes(name)
	return h, err
}

// attributes returns the extended ones that a layer may have.
func (p *packer) attributes(name string) (map[string]string, error) {
	f, err := p.path(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := procfd.Xattrs(f.Fd())
	if err != nil || len(names) == 0 {
		return nil, err
	}
	records := map[string]string{}
	for _, key := range names {
		if key == redirect || key == metacopy {
			return nil, fmt.Errorf("%s: overlay with %s: %w", name, key, errs.Unsupported)
		}
		if !entry.AllowedXattr(key) {
			continue
		}
		value, err := procfd.Xattr(f.Fd(), key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		records[entry.XattrRecord+key] = string(value)
	}
	return records, nil
}

// path opens a name without anything happening to what is there.
func (p *packer) path(name string) (*os.File, error) {
	return p.root.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

func (p *packer) directory(name string) error {
	d, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if value, err := procfd.Xattr(d.Fd(), overlay.Opaque); err == nil && string(value) == "y" {
		if err := p.mark(path.Join(name, entry.WhiteoutOpaque)); err != nil {
			return err
		}
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), entry.WhiteoutPrefix) {
			return fmt.Errorf("%s: a layer cannot have that name: %w", path.Join(name, e.Name()), errs.Unsupported)
		}
		if err := p.entry(path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) content(name string, size int64) error {
	f, err := p.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(p.tar, io.LimitReader(f, size)); err != nil || n < size {
		return fmt.Errorf("%s: %d of %d bytes: %w", name, n, size, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// Apply makes the upper directory dir of what Write has written.
func Apply(ctx context.Context, dir string, r io.ReadSeeker) error {
	if err := check(ctx, r); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	made, err := directory.Unpack(ctx, dir, r, entry.Limits{}.WithDefaults())
	switch {
	case err != nil:
		return fmt.Errorf("changes: %w", err)
	case len(made.Implied) > 0:
		return fmt.Errorf("changes: directory %.200q is not listed: %w", made.Implied[0], errs.Invalid)
	case len(made.Links) > 0:
		return fmt.Errorf("changes: hard link %.200q leads to %.200q, which is not there: %w", made.Links[0].Path, made.Links[0].Target, errs.Invalid)
	}
	return nil
}

// check refuses devices.
func check(ctx context.Context, r io.Reader) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return entry.KindOf(err)
		}
		if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
			return fmt.Errorf("%.200q is a device: %w", h.Name, errs.Invalid)
		}
	}
}
