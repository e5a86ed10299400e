package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/overlay"
)

// Stack returns what to mount for an image's layers, the lowest first: the layers
// themselves, and above each that leaves something open a stacking layer that
// settles it for the layers below. All layers must be present. keep is told of
// each stacking layer before it is looked for or made. The error is of kind
// Unsupported where the kernel does not stack as many.
func (s *Store) Stack(ctx context.Context, diffIDs []digest.Digest, keep func(...digest.Digest)) ([]digest.Digest, error) {
	var stack []digest.Digest
	for n, d := range diffIDs {
		info, err := s.Info(d)
		if err != nil {
			return nil, err
		}
		below := stack
		whole := append(stack[:len(stack):len(stack)], d)
		if len(whole) > overlay.MaxStack {
			return nil, tooMany(len(whole))
		}
		if stack = highest(whole); s.opaqueRoot(d) { // overlay does not look for that mark on a layer's root
			stack = []digest.Digest{d}
		}
		if len(info.Links)+len(info.Whiteouts) == 0 && (n == 0 || len(info.Implied) == 0) {
			continue
		}
		id := stackID(whole)
		keep(id)
		made, err := s.settle(ctx, id, below, info)
		if err != nil {
			return nil, fmt.Errorf("stack layer %s: %w", d, err)
		}
		if made {
			stack = append(stack, id)
		}
	}
	if len(stack) > overlay.MaxStack {
		return nil, tooMany(len(stack))
	}
	return stack, nil
}

func tooMany(n int) error {
	return fmt.Errorf("%d layers with those that settle them, of which the kernel stacks %d: %w", n, overlay.MaxStack, errs.Unsupported)
}

// highest returns the stack without the lower ones of equal layers: overlay takes
// no directory twice, and the highest hides and adds all that the others do. What
// was settled above those stays, and so does what it shows.
func highest(stack []digest.Digest) []digest.Digest {
	var kept []digest.Digest
	for n, d := range stack {
		if !slices.Contains(stack[n+1:], d) {
			kept = append(kept, d)
		}
	}
	return kept
}

// opaqueRoot reports whether a layer hides everything below it.
func (s *Store) opaqueRoot(d digest.Digest) bool {
	fd, err := openPath(s.Tree(d))
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return opaque(fd, ".")
}

// stackID names the stacking layer above a stack.
func stackID(stack []digest.Digest) digest.Digest {
	b := strings.Builder{}
	b.WriteString("berth stacking layer 1\n")
	for _, d := range stack {
		b.WriteString(d.String() + "\n")
	}
	return digest.FromString(b.String())
}

// settle makes the stacking layer id for a layer above those below. It reports
// false where there is nothing to settle.
func (s *Store) settle(ctx context.Context, id digest.Digest, below []digest.Digest, info Info) (bool, error) {
	unlock, err := s.locks.Lock(ctx, name(id))
	if err != nil {
		return false, err
	}
	defer unlock()
	if s.Has(id) {
		return true, nil
	}
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	st, err := s.newSettler(temp, below, info)
	if err != nil {
		return false, err
	}
	err = st.run(info)
	made := st.made
	if closeErr := st.close(); err == nil {
		err = closeErr
	}
	if err != nil || made == 0 {
		return false, Full(err)
	}
	for _, d := range []string{viewDir, emptyDir, emptyDir2} {
		if err := os.Remove(filepath.Join(temp, d)); err != nil {
			return false, err
		}
	}
	p, err := s.path(id)
	if err != nil {
		return false, err
	}
	return true, s.commit(temp, p, Info{Version: infoVersion, DiffID: id, Inodes: made})
}

const (
	viewDir   = "view"  // where the layers below are mounted meanwhile
	emptyDir  = "empty" // overlay wants two layers at least
	emptyDir2 = "empty2"
)

// newSettler mounts what is below and opens the trees.
func (s *Store) newSettler(temp string, below []digest.Digest, info Info) (*settler, error) {
	for _, d := range []string{viewDir, emptyDir, emptyDir2, treeDir} {
		if err := errors.Join(os.Mkdir(filepath.Join(temp, d), 0o755), os.Chmod(filepath.Join(temp, d), 0o755)); err != nil {
			return nil, err
		}
	}
	o := overlay.Mount{Lower: []string{filepath.Join(temp, emptyDir)}}
	if len(below) == 0 {
		o.Lower = append(o.Lower, filepath.Join(temp, emptyDir2))
	}
	st := &settler{implied: map[string]bool{}, moved: map[string]string{}, view: filepath.Join(temp, viewDir)}
	for _, d := range below {
		o.Lower = append(o.Lower, s.Tree(d))
		st.trees = append(st.trees, s.Tree(d))
	}
	if err := o.Attach(st.view); err != nil {
		return nil, err
	}
	var failed [3]error
	st.below, failed[0] = openPath(st.view)
	st.own, failed[1] = openPath(s.Tree(info.DiffID))
	st.out, failed[2] = openPath(filepath.Join(temp, treeDir))
	if err := errors.Join(failed[:]...); err != nil {
		return nil, errors.Join(err, st.close())
	}
	for _, p := range info.Implied {
		st.implied[p] = true
	}
	return st, nil
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
