// Package debian makes root file systems of Debian packages, by mmdebstrap from
// a Debian mirror, and keeps them in a cache directory: the first time takes a
// minute, the next none.
package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Root describes a root file system.
type Root struct {
	// Suite is Debian's code name, such as bookworm.
	Suite string
	// Packages are installed with what they depend on, and nothing that they
	// merely recommend.
	Packages []string
	// Exclude are dpkg's patterns of paths that are not unpacked.
	Exclude []string
}

// Sklearn is a Debian with Python 3 and scikit-learn, without documents and
// without the compiler that one of its packages brings.
func Sklearn() Root {
	return Root{
		Suite:    "bookworm",
		Packages: []string{"python3", "python3-sklearn"},
		Exclude: []string{
			"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*",
			"/usr/include/*", "/usr/lib/gcc/*", "/usr/bin/*lto-dump*", "/usr/lib/python3*/config-3*",
		},
	}
}

// arguments are mmdebstrap's.
func (r Root) arguments() []string {
	args := []string{"--quiet", "--mode=root", "--variant=minbase", "--include=" + strings.Join(r.Packages, ","), `--aptopt=APT::Install-Recommends "false"`}
	for _, pattern := range r.Exclude {
		args = append(args, "--dpkgopt=path-exclude="+pattern)
	}
	return append(args, r.Suite)
}

// Path is where the root file system's tarball is in a cache directory, made or
// not. It depends on all that describes it.
func (r Root) Path(cache string) string {
	sum := sha256.Sum256([]byte(strings.Join(r.arguments(), "\x00")))
	return filepath.Join(cache, fmt.Sprintf("%s-%x.tar", r.Suite, sum[:6]))
}

// Make makes the tarball at Path, where it is not yet, and needs root and a
// network to do so. One that is there is whole. When ctx ends, mmdebstrap takes
// away what it has begun.
func (r Root) Make(ctx context.Context, cache string) error {
	path := r.Path(cache)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	unfinished := path + ".unfinished.tar"
	defer os.Remove(unfinished) //nolint:errcheck // after the rename it is not there
	c := exec.CommandContext(ctx, "mmdebstrap", append(r.arguments(), unfinished)...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap %s: %w\n%s", strings.Join(c.Args[1:], " "), err, tail(out, 20))
	}
	return os.Rename(unfinished, path)
}

// tail returns the last lines of a long text.
func tail(text []byte, lines int) []byte {
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], []byte("\n"))
}
