package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/berth-run/berth/pkg/errs"
)

// maxSpec bounds a specification, in bytes. Those of a node with eight GPUs have
// some tens of thousands.
const maxSpec = 16 << 20

// settled is how old a change has to be before a file's stamp is trusted: one
// soon after could leave it as it is.
const settled = time.Second

// catalog is what the directories held at one moment. It is not changed.
type catalog struct {
	dirs  []string
	files []*file // by directory, then by name
}

// file is one specification, or what is wrong with it or its directory.
type file struct {
	path  string
	dir   int
	stamp stamp
	spec  *cdi.Spec
	err   error
}

// stamp is what changes with a file. The zero value is never trusted.
type stamp struct {
	dev, ino   uint64
	size       int64
	mtim, ctim unix.Timespec
}

// scan looks at the directories and reads what is not as it was.
func scan(dirs []string, old *catalog) *catalog {
	known := map[string]*file{}
	if old != nil {
		for _, f := range old.files {
			known[f.path] = f
		}
	}
	now := &catalog{dirs: dirs}
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			now.files = append(now.files, &file{path: dir, dir: i, err: err})
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".json" && ext != ".yaml" {
				continue
			}
			path := filepath.Join(dir, e.Name())
			now.files = append(now.files, look(path, i, known[path]))
		}
	}
	return now
}

// look returns old where the file has not changed since.
func look(path string, dir int, old *file) *file {
	f := &file{path: path, dir: dir}
	var st unix.Stat_t
	if f.err = unix.Stat(path, &st); f.err != nil {
		return f
	}
	now := stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	switch {
	case old != nil && old.dir == dir && old.stamp == now:
		return old
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		f.err = errors.New("is no regular file")
	case st.Size > maxSpec:
		f.err = fmt.Errorf("is larger than %d bytes", maxSpec)
	default:
		f.spec, f.err = read(path, dir)
	}
	if time.Since(time.Unix(st.Ctim.Unix())) > settled {
		f.stamp = now
	}
	return f
}

// read turns what the library panics on, such as a null in a list, into errors.
func read(path string, priority int) (s *cdi.Spec, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("is malformed: %v", r)
		}
	}()
	return cdi.ReadSpec(path, priority)
}

// find returns the specification with a device of that qualified name: that of the
// last directory with one.
func (c *catalog) find(name string) (*file, error) {
	vendor, class, device := parser.ParseDevice(name)
	var found, rival *file
	var broken []string
	for _, f := range c.files {
		if f.err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", f.path, f.err))
			continue
		}
		if f.spec.GetVendor() != vendor || f.spec.GetClass() != class || f.spec.GetDevice(device) == nil {
			continue
		}
		if rival = found; rival != nil && rival.dir != f.dir {
			rival = nil
		}
		found = f
	}
	if rival != nil {
		return nil, fmt.Errorf("both %s and %s describe it: %w", rival.path, found.path, errs.Invalid)
	}
	if found != nil {
		return found, nil
	}
	where := "no directories of CDI specifications are configured"
	if len(c.dirs) > 0 {
		where = "no specification in " + strings.Join(c.dirs, " or ") + " describes it"
	}
	if len(broken) > 0 {
		where += "; not read: " + strings.Join(broken, "; ")
	}
	return nil, fmt.Errorf("%s: %w", where, errs.Invalid)
}
