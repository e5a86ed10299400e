// Package entry says what an entry of a layer's tar stream may be, whatever form
// the layer takes on disk. It is pure: it reads headers, which are attackers'
// data, and touches no file.
package entry

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// XattrRecord begins the name of a PAX record that holds an extended attribute.
const XattrRecord = "SCHILY.xattr."

// Names that mean something else than a file.
const (
	WhiteoutPrefix = ".wh."
	WhiteoutMeta   = ".wh..wh."     // names of aufs itself, and the opaque marker
	WhiteoutOpaque = ".wh..wh..opq" // hides all that layers below have in its directory
	LinkTargets    = ".wh..wh.plnk" // aufs's directory of files with several names
)

// MaxSymlinks is how many links one path may lead through, as the kernel's
// MAXSYMLINKS.
const MaxSymlinks = 40

// Name turns an entry's name into a path below the root, "." for the root
// itself. It refuses names that climb.
func Name(name string) (string, error) {
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0) || len(p) >= unix.PathMax {
		return "", fmt.Errorf("path %.200q leaves the layer or is too long: %w", name, errs.Invalid)
	}
	return p, nil
}

// CheckOwner refuses numbers that the kernel would cut.
func CheckOwner(h *tar.Header) error {
	for _, id := range [...]int{h.Uid, h.Gid} {
		if id < 0 || int64(id) >= math.MaxUint32 {
			return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, errs.Invalid)
		}
	}
	return nil
}

// CheckDevice refuses devices that the kernel has no numbers for.
func CheckDevice(h *tar.Header) error {
	if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
		return fmt.Errorf("device %d:%d: %w", h.Devmajor, h.Devminor, errs.Invalid)
	}
	return nil
}

// AllowedXattr says which extended attributes an image may set. Those of
// overlay would let a layer redirect into others; labels are the host's.
func AllowedXattr(key string) bool {
	switch key {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(key, "user.") && !strings.HasPrefix(key, "user.overlay.")
}

// OfAufs reports whether the path p is of aufs itself, and whether it is a file
// that hard links of the same stream may point to: the only thing of aufs's that
// is taken, for as long as the stream lasts.
func OfAufs(p string, h *tar.Header) (aufs, target bool) {
	top, below, found := strings.Cut(p, "/")
	if !found || !strings.HasPrefix(top, WhiteoutMeta) {
		return false, false
	}
	return true, top == LinkTargets && h.Typeflag == tar.TypeReg && !strings.HasPrefix(path.Base(below), WhiteoutPrefix)
}

// Hidden returns the name that a whiteout hides: "" where it is aufs's own and
// hides nothing.
func Hidden(p string) (string, error) {
	base := path.Base(p)
	if strings.HasPrefix(base, WhiteoutMeta) {
		return "", nil
	}
	hidden := strings.TrimPrefix(base, WhiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return "", fmt.Errorf("whiteout %.200q names nothing: %w", p, errs.Invalid)
	}
	return hidden, nil
}

// Sparse reports whether the archive describes the file by its holes.
func Sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// KindOf marks what the tar reader refuses as the stream's fault.
func KindOf(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	return err
}
