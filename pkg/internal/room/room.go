// Package room says what a full disk was full for: the path, the bytes that were
// needed and the bytes that are free.
package room

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// Error is a write that a disk or a quota had no room for. It is of kind
// Exhausted.
type Error struct {
	Path string // that was written
	Need int64  // bytes that the write still needed at least; 0 where nobody knows
	Free int64  // bytes on that file system, for root; -1 where it does not tell
	// Inodes says that what has run out is room for more files, not bytes.
	Inodes bool
	Err    error
}

// Error returns what to free, and where.
func (e *Error) Error() string {
	text := fmt.Sprintf("%v: %s", e.Err, e.Path)
	if e.Inodes {
		return text + " needs one more file, and its file system has no free inode"
	}
	switch {
	case e.Need > 0 && e.Free >= 0:
		text += fmt.Sprintf(" needs %d bytes more, and %d are free", e.Need, e.Free)
	case e.Need > 0:
		text += fmt.Sprintf(" needs %d bytes more", e.Need)
	case e.Free >= 0:
		text += fmt.Sprintf(" needs more than the %d bytes that are free", e.Free)
	}
	return text
}

// Unwrap returns the error of the write, and its kind.
func (e *Error) Unwrap() []error { return []error{e.Err, errs.Exhausted} }

// Explain returns the error of a write to path as an Error where it says that
// there is no room. Another error, and one that is explained already, it returns
// as it is. need is how many bytes were still to be written, 0 where that is not
// known.
func Explain(err error, path string, need int64) error {
	var known *Error
	if err == nil || errors.As(err, &known) || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	e := &Error{Path: path, Need: need, Free: -1, Err: err}
	if st, err := statfs(path); err == nil {
		e.Free = int64(st.Bfree) * st.Bsize
		e.Inodes = st.Files > 0 && st.Ffree == 0
	}
	return e
}

// statfs asks the file system of path, or of what is left above it.
func statfs(path string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		up := filepath.Dir(path)
		if err == nil || up == path {
			return st, err
		}
		path = up
	}
}
