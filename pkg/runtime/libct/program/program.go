// Package program tells why a process did not come to execute its program, from a
// look into the root file system: what makes processes says that in words alone.
//
// It decides nothing that a look could be too late for, and keeps nothing.
package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// Blame adds a kind to the error of a process that has not begun, where it has none
// and the root file system is why: errs.NoProgram or errs.NoExecutable, or
// errs.Invalid where it has a link in the place of a mount.
func Blame(err error, root string, mounts []specs.Mount, p *specs.Process) error {
	if errs.Of(err) != "" {
		return err
	}
	if why := errs.Of(Check(root, mounts, p)); why != "" {
		return fmt.Errorf("%w: %w", err, why)
	}
	for _, m := range mounts {
		if what := obstacle(root, m); what != "" {
			return fmt.Errorf("the image's %s is %s, and %s cannot be mounted there: %w: %w", m.Destination, what, m.Type, err, errs.Invalid)
		}
	}
	return err
}

// obstacle says what is in the place of one of the kernel's file systems, which are
// mounted on directories alone.
func obstacle(root string, m specs.Mount) string {
	if filepath.Dir(m.Destination) != "/" || m.Type != "proc" && m.Type != "sysfs" && m.Destination != "/dev" {
		return ""
	}
	switch info, err := os.Lstat(filepath.Join(root, m.Destination)); {
	case err != nil || info.IsDir():
		return ""
	case info.Mode().Type() == fs.ModeSymlink:
		return "a link"
	}
	return "no directory"
}

// Check returns an error of one of those kinds where there surely is no program for
// p to execute. What is below the mounts is not seen.
func Check(root string, mounts []specs.Mount, p *specs.Process) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	r, name := rootFS{dir, mounts}, p.Args[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join("/", p.Cwd, name)
		}
		err = r.executable(name)
	} else {
		err = r.inPath(name, p.Env)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("exec: %q: %w: %w", p.Args[0], err, errs.NoProgram)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("exec: %q: %w: %w", p.Args[0], err, errs.NoExecutable)
	}
	return nil
}

type rootFS struct {
	dir    int
	mounts []specs.Mount
}

// inPath looks where a shell does: what cannot be executed there is none.
func (r rootFS) inPath(name string, env []string) error {
	list := ""
	for _, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			list = path
		}
	}
	for _, dir := range filepath.SplitList(list) {
		if filepath.IsAbs(dir) && r.executable(filepath.Join(dir, name)) == nil {
			return nil
		}
	}
	return unix.ENOENT
}

// executable looks at a path as a process confined to the root would.
func (r rootFS) executable(path string) error {
	root := procfd.Path(r.dir)
	end, err := securejoin.SecureJoin(root, path) // where its links lead
	if err != nil {
		end = path
	}
	end = strings.TrimPrefix(end, root)
	if slices.ContainsFunc(r.mounts, func(m specs.Mount) bool { return below(path, m.Destination) || below(end, m.Destination) }) {
		return nil
	}
	fd, err := unix.Openat2(r.dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	case st.Mode&unix.S_IFMT != unix.S_IFREG, st.Mode&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
