package hosts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	maxFile  = 256 << 10 // of one file; the largest in use have some 20 KiB
	maxFiles = 1000      // in one directory
)

// read returns a whole file, which must not be longer than any such file is.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes: %w", path, maxFile, errs.Invalid)
	}
	return data, nil
}

// names are the sorted names of the files in a directory; one that does not exist
// has none.
func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(list) > maxFiles {
		return nil, fmt.Errorf("%s: more than %d files: %w", dir, maxFiles, errs.Invalid)
	}
	var found []string
	for _, e := range list {
		if !e.IsDir() {
			found = append(found, e.Name())
		}
	}
	slices.Sort(found)
	return found, nil
}

// stampOf changes when one of the files does.
func stampOf(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		if i, err := os.Stat(p); err == nil {
			fmt.Fprintf(&b, "%s %d %d %v\n", p, i.Size(), i.ModTime().UnixNano(), inode(i))
		}
	}
	return b.String()
}

// confFiles are the files of registries.conf that count, in the order of reading:
// the main file, then drop-ins by name.
func (f *Files) confFiles() ([]string, error) {
	var files []string
	for _, p := range f.options.RegistriesConf {
		if _, err := os.Stat(p); err == nil {
			files = append(files, p)
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	drops := map[string]string{}
	for _, p := range f.options.RegistriesConf {
		list, err := names(p + ".d")
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			if _, taken := drops[name]; !taken && strings.HasSuffix(name, ".conf") {
				drops[name] = filepath.Join(p+".d", name)
			}
		}
	}
	sorted := make([]string, 0, len(drops))
	for name := range drops {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		files = append(files, drops[name])
	}
	return files, nil
}

// load returns what registries.conf says now.
func (f *Files) load() *table {
	f.mu.Lock()
	defer f.mu.Unlock()
	files, err := f.confFiles()
	stamp := stampOf(files) + fmt.Sprint(err)
	if t := f.table.Load(); t != nil && stamp == f.stamp {
		return t
	}
	t := newTable()
	if err != nil {
		t.fault = err
	}
	for _, path := range files {
		data, err := read(path)
		if err == nil {
			err = t.add(path, data)
		}
		if err != nil && t.fault == nil {
			t.fault = err
		}
	}
	f.stamp = stamp
	f.table.Store(t)
	return t
}

// known is what load has returned last, without a look at the files.
func (f *Files) known() *table {
	if t := f.table.Load(); t != nil {
		return t
	}
	return f.load()
}
