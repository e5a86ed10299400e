package directory

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/image/treesum"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// maxCachedDirs is how many descriptors are kept for parents of entries.
const maxCachedDirs = 256

// tree is one directory that entries are applied below. Nothing that an entry
// names is opened in another way than below its descriptor. It is for one
// goroutine.
type tree struct {
	root    int            // O_PATH descriptor
	parents map[string]int // open directories by the path that named them
	implied map[uint64]string
	links   map[string]string // hard links into a layer below, by path
	// whiteouts holds the directories that hold whiteouts.
	whiteouts map[string]bool
	targets   bool // there are linkTargets
	plain     bool // it is not a layer: see Extract
	sum       treesum.Sum
	removed   bool // something that an earlier entry has made
	dir       string
	budget    entry.Budget
}

func openTree(dir string, limits entry.Limits) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	t := &tree{
		root: fd, dir: dir, budget: entry.Budget{Limits: limits},
		parents: map[string]int{}, implied: map[uint64]string{}, links: map[string]string{}, whiteouts: map[string]bool{},
	}
	st, err := statAt(fd, "")
	if err != nil {
		t.close()
		return nil, err
	}
	t.implied[st.Ino] = "."
	return t, nil
}

func (t *tree) close() {
	t.forget()
	_ = unix.Close(t.root)
}

// forget closes the cached directories: a name may now lead elsewhere.
func (t *tree) forget() {
	for _, fd := range t.parents {
		_ = unix.Close(fd)
	}
	clear(t.parents)
}

// openBelow opens a path below dirfd, wherever its links point.
func openBelow(dirfd int, p string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(dirfd, p, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

func statAt(dirfd int, p string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, p, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	return st, err
}

func isDir(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isWhiteout(st unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// parent returns the directory that holds the last component of p, which it
// makes if the stream has not. The descriptor belongs to the tree and holds
// until the next call.
func (t *tree) parent(p string) (int, error) {
	dir := path.Dir(p)
	if dir == "." {
		return t.root, nil
	}
	if fd, ok := t.parents[dir]; ok {
		return fd, nil
	}
	if len(t.parents) >= maxCachedDirs {
		t.forget()
	}
	fd, err := openBelow(t.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		fd, err = t.imply(dir)
	}
	if err != nil {
		return -1, fmt.Errorf("directory %.200q: %w", dir, err)
	}
	t.parents[dir] = fd
	return fd, nil
}

// imply makes the directories of a path that the stream has not listed and
// returns the last. Symbolic links of this layer are followed, inside the root,
// as they would be if the layer were applied in order.
func (t *tree) imply(dir string) (int, error) {
	var done []string
	rest := strings.Split(dir, "/")
	for links := 0; len(rest) > 0; {
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			continue
		}
		target, err := t.step(path.Join(done...), c)
		if err != nil {
			return -1, err
		}
		if target == "" {
			done = append(done, c)
			continue
		}
		if links++; links > entry.MaxSymlinks {
			return -1, unix.ELOOP
		}
		if path.IsAbs(target) {
			done = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return openBelow(t.root, path.Join(append([]string{"."}, done...)...), unix.O_PATH|unix.O_DIRECTORY)
}

// step makes sure that dir/c, where dir has no links in it, is a directory, or
// returns the target of the link that it is.
func (t *tree) step(dir, c string) (target string, err error) {
	fd, err := openBelow(t.root, path.Join(".", dir), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	st, err := statAt(fd, c)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", t.makeImplied(fd, path.Join(dir, c), c)
	case err != nil:
		return "", err
	case isDir(st):
		return "", nil
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return readlinkAt(fd, c)
	case isWhiteout(st): // it hides the directory below: this one is new
		if err := errors.Join(t.budget.Entry(), unix.Unlinkat(fd, c, 0)); err != nil {
			return "", err
		}
		return "", t.makeOpaque(fd, c)
	}
	return "", fmt.Errorf("%.200q: %w: %w", path.Join(dir, c), unix.ENOTDIR, errs.Invalid)
}

func (t *tree) makeImplied(fd int, full, c string) error {
	if err := errors.Join(t.budget.Entry(), t.budget.Note(full)); err != nil {
		return err
	}
	if err := makeDir(fd, c); err != nil {
		return err
	}
	delete(t.links, full)
	st, err := statAt(fd, c)
	if err == nil {
		t.implied[st.Ino] = full
	}
	return err
}

func makeDir(fd int, c string) error {
	if err := unix.Mkdirat(fd, c, 0o755); err != nil {
		return err
	}
	return chmodAt(fd, c, 0o755) // whatever the umask
}

func (t *tree) makeOpaque(fd int, c string) error {
	if err := makeDir(fd, c); err != nil {
		return err
	}
	return setOpaque(fd, c)
}

// setOpaque makes the directory c hide what layers below have in it.
func setOpaque(fd int, c string) error {
	d, err := unix.Openat(fd, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return unix.Fsetxattr(d, overlay.Opaque, []byte("y"), 0)
}

// chmodAt sets the mode of c without following it: fchmodat cannot before
// Linux 6.6.
func chmodAt(fd int, c string, mode uint32) error {
	f, err := unix.Openat(fd, c, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return unix.Chmod(procfd.Path(f), mode)
}

func readlinkAt(fd int, c string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, c, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
