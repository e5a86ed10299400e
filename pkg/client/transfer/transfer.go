// Package transfer packs local files into tar streams for containers, and unpacks
// what containers send. It owns nothing. What a container sends is hostile: names
// lead nowhere but below the directory that was asked for, devices and the bits
// that give rights are left out, and a name other than the asked one is refused.
package transfer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// Pack writes the file or the tree at from, called name there.
func Pack(w io.Writer, from, name string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(from, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return packOne(out, p, path.Join(name, filepath.ToSlash(below)))
	})
	return errors.Join(err, out.Close())
}

func packOne(out *tar.Writer, from, name string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if link, err = os.Readlink(from); err != nil {
			return err
		}
	}
	if t := info.Mode().Type(); t != 0 && t != fs.ModeDir && t != fs.ModeSymlink {
		return nil // sockets, pipes and devices are of this machine
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, io.LimitReader(f, h.Size)) // one that grows is cut, as tar does
	return err
}

// Unpack makes what the stream says below dir. Everything in it has to be name or
// below it, and is called rename here.
func Unpack(r io.Reader, dir, name, rename string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // what tar fills its last block with
			return err
		}
		if err != nil {
			return err
		}
		to, err := called(h.Name, name, rename)
		if err != nil {
			return err
		}
		if err := unpackOne(root, in, h, to, name, rename); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

// called is where an entry goes.
func called(entry, name, rename string) (string, error) {
	clean := path.Clean("/" + entry)[1:]
	rest, ok := strings.CutPrefix(clean, name)
	if !ok || rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("the container sends %q, which is not of %q: %w", entry, name, errs.Invalid)
	}
	return rename + rest, nil
}

func unpackOne(root *os.Root, in *tar.Reader, h *tar.Header, to, name, rename string) error {
	perm := fs.FileMode(h.Mode) & fs.ModePerm
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(to, 0o700); err != nil {
			return err
		}
		return root.Chmod(to, perm|0o700)
	case tar.TypeSymlink:
		_ = root.Remove(to) // what is in the way tells by the next error
		return root.Symlink(h.Linkname, to)
	case tar.TypeLink:
		old, err := called(h.Linkname, name, rename)
		if err != nil {
			return err
		}
		_ = root.Remove(to) // see above
		return root.Link(old, to)
	case tar.TypeReg:
		return unpackFile(root, in, to, perm)
	}
	return nil // devices and pipes are the container's
}

// unpackFile makes a new file: one that is there may have other names, and may be
// a link.
func unpackFile(root *os.Root, from io.Reader, to string, perm fs.FileMode) error {
	if err := root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chmod(perm), f.Close())
}
