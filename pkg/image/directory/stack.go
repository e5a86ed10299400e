package directory

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/overlay"
)

const (
	viewDir   = "view"  // where the layers below are mounted meanwhile
	emptyDir  = "empty" // overlay wants two layers at least
	emptyDir2 = "empty2"
)

// Stack is a layer and the layers below it.
type Stack struct {
	Below []string // trees, the lowest first
	Own   string   // the layer's tree
	Made  Made     // what Unpack has said of it
}

// Settle makes the tree out, to be mounted directly above the layer, and returns
// how many files and directories it has made there: none where there is nothing to
// settle. The directory work, which is there, holds a view of the layers below
// meanwhile.
func (s Stack) Settle(out, work string) (made int64, err error) {
	st, err := s.open(out, work)
	if err != nil {
		return 0, err
	}
	err = st.run(s.Made)
	if closeErr := st.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, err
	}
	for _, d := range []string{viewDir, emptyDir, emptyDir2} {
		if err := os.Remove(filepath.Join(work, d)); err != nil {
			return 0, err
		}
	}
	return st.made, nil
}

// Sweep removes a work directory that a crash has left, with the view that may be
// mounted in it: it is read only, and nothing of the layers below goes.
func Sweep(work string) error {
	err := unix.Unmount(filepath.Join(work, viewDir), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return os.RemoveAll(work)
}

// open mounts what is below and opens the trees.
func (s Stack) open(out, work string) (*settler, error) {
	dirs := []string{out}
	for _, d := range []string{viewDir, emptyDir, emptyDir2} {
		dirs = append(dirs, filepath.Join(work, d))
	}
	for _, d := range dirs {
		if err := errors.Join(os.Mkdir(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			return nil, err
		}
	}
	o := overlay.Mount{Lower: []string{filepath.Join(work, emptyDir)}}
	if len(s.Below) == 0 {
		o.Lower = append(o.Lower, filepath.Join(work, emptyDir2))
	}
	o.Lower = append(o.Lower, s.Below...)
	st := &settler{implied: map[string]bool{}, moved: map[string]string{}, view: filepath.Join(work, viewDir), trees: s.Below}
	if err := o.Attach(st.view); err != nil {
		return nil, err
	}
	var failed [3]error
	st.below, failed[0] = openPath(st.view)
	st.own, failed[1] = openPath(s.Own)
	st.out, failed[2] = openPath(out)
	if err := errors.Join(failed[:]...); err != nil {
		return nil, errors.Join(err, st.close())
	}
	for _, p := range s.Made.Implied {
		st.implied[p] = true
	}
	return st, nil
}

// Opaque reports whether a layer's tree hides everything below it.
func Opaque(tree string) bool {
	fd, err := openPath(tree)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return opaque(fd, ".")
}

func openPath(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

func (st *settler) close() error {
	for _, fd := range []int{st.below, st.own, st.out} {
		if fd > 0 {
			_ = unix.Close(fd)
		}
	}
	return os.NewSyscallError("umount", unix.Unmount(st.view, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}
