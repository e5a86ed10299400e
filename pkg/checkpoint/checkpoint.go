// Package checkpoint is the form of checkpoints on disk.
//
//	DIR/manifest.json       version, architecture, and what each container was
//	DIR/N/                  container N, in the manifest's order
//	    checkpoint/         CRIU's images
//	    rootfs-diff.tar     what it had written over its image
//	    config.dump, spec.dump, dump.log
//
// The checkpoint of one container is a tar of what is below N, which is the form
// that other runtimes use, too.
//
// A checkpoint that is read is hostile: it is opened by openat2 without following
// a link, only regular files of bounded size are copied, and the manifest says what
// the checkpoint may be used for, never what is to be made. CRIU's images are another
// matter: they are programs that CRIU, as root, executes. Who can write to a
// checkpoint before it is restored is root on the node.
package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/procfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Names below a container's directory.
const (
	Images  = "checkpoint"
	Changes = "rootfs-diff.tar"
	Config  = "config.dump"
	Spec    = "spec.dump"
)

const (
	version  = 1
	manifest = "manifest.json"

	maxManifest   = 8 << 20
	maxContainers = 1000
	maxFiles      = 1 << 17
	maxBytes      = 1 << 40 // of one container's images
)

// Container is what a checkpointed container was, and has to be again.
type Container struct {
	// Name is CRI's, unique in the pod.
	Name string `json:"name"`
	// Image is its id.
	Image    string   `json:"image"`
	Args     []string `json:"args"`
	Cwd      string   `json:"cwd"`
	Terminal bool     `json:"terminal"`
	Stdin    bool     `json:"stdin"`
	// Env need not be UTF-8.
	Env [][]byte `json:"env"`
	// User are user, group, and other groups.
	User []uint32 `json:"user"`
	// Mounts are their places and types, in order.
	Mounts []string `json:"mounts"`
	// Namespaces are their types and whether they are the container's own.
	Namespaces []string `json:"namespaces"`
	// Limits are capabilities, rlimits, seccomp profile and the like, of which CRIU
	// makes what they were: words, or digests.
	Limits []string `json:"limits"`
}

// Check tells in what the container to be made differs from this one.
func (c Container) Check(made Container) error {
	was, is := reflect.ValueOf(c), reflect.ValueOf(made)
	for i := range was.NumField() {
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			return fmt.Errorf("container %s: its %s are not those of the checkpoint: %w", made.Name, strings.ToLower(was.Type().Field(i).Name), errs.Invalid)
		}
	}
	return nil
}

// record is manifest.json.
type record struct {
	Version      int         `json:"version"`
	Architecture string      `json:"architecture"`
	CreatedAt    time.Time   `json:"createdAt"`
	Containers   []Container `json:"containers"`
}

// Empty refuses what is not an empty directory at an absolute path.
func Empty(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("checkpoint directory %q is not absolute: %w", dir, errs.Invalid)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("checkpoint directory: %w: %w", err, errs.Invalid)
	}
	defer f.Close()
	if names, err := f.Readdirnames(1); len(names) > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("checkpoint directory %s is not empty: %w", dir, cmp.Or(ignoreEOF(err), error(errs.Invalid)))
	}
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Clear removes all that is in the directory, which stays.
func Clear(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if removeErr := root.RemoveAll(e.Name()); err == nil {
			err = removeErr
		}
	}
	return err
}

// Dir returns the directory of the container at place n.
func Dir(dir string, n int) string { return filepath.Join(dir, strconv.Itoa(n)) }

// Finish writes the manifest, and all that is there to the disk.
func Finish(dir string, all []Container) error {
	err := statefile.WriteDurable(filepath.Join(dir, manifest), record{Version: version, Architecture: runtime.GOARCH, CreatedAt: time.Now(), Containers: all})
	if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// Dump is a checkpoint that has been opened.
type Dump struct {
	dir        *os.File
	containers []Container
}

// Open opens the checkpoint in a directory at an absolute path. What is wrong with it
// is an error of kind errs.Invalid.
func Open(dir string) (*Dump, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("checkpoint directory %q is not absolute: %w", dir, errs.Invalid)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w: %w", err, errs.Invalid)
	}
	d := &Dump{dir: f}
	if err := d.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoint %s: %w: %w", dir, err, errs.Invalid)
	}
	return d, nil
}

// Close closes what Open opened.
func (d *Dump) Close() error { return d.dir.Close() }

func (d *Dump) read() error {
	f, err := d.open(manifest)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return err
	}
	var r record
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	switch err := decoder.Decode(&r); {
	case len(data) > maxManifest:
		return fmt.Errorf("%s is larger than %d bytes", manifest, maxManifest)
	case err != nil:
		return fmt.Errorf("%s: %w", manifest, err)
	case r.Version != version:
		return fmt.Errorf("version %d, this build reads %d", r.Version, version)
	case r.Architecture != runtime.GOARCH:
		return fmt.Errorf("it is of %.20q, this node is %s", r.Architecture, runtime.GOARCH)
	case len(r.Containers) == 0 || len(r.Containers) > maxContainers:
		return fmt.Errorf("%d containers", len(r.Containers))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s goes on after its end", manifest)
	}
	names := map[string]bool{}
	for _, c := range r.Containers {
		if c.Name == "" || names[c.Name] {
			return fmt.Errorf("container name %.100q is empty or comes twice", c.Name)
		}
		names[c.Name] = true
	}
	d.containers = r.Containers
	return nil
}

// Names returns the names of the containers.
func (d *Dump) Names() (all []string) {
	for _, c := range d.containers {
		all = append(all, c.Name)
	}
	return all
}

// Container returns the part of the checkpoint that is of the container of that name.
func (d *Dump) Container(name string) (*Part, error) {
	for n, c := range d.containers {
		if c.Name == name {
			return &Part{d, strconv.Itoa(n), c}, nil
		}
	}
	return nil, fmt.Errorf("the checkpoint has no container %q: %w", name, errs.Invalid)
}

// Part is the checkpoint of one container. It is of no use after the Dump's Close.
type Part struct {
	d   *Dump
	dir string
	// Was is the container.
	Was Container
}

// OpenChanges opens what it had written.
func (p *Part) OpenChanges() (*os.File, error) {
	f, err := p.d.open(path.Join(p.dir, Changes))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w: %w", err, errs.Invalid)
	}
	return f, nil
}

// CopyImages copies CRIU's images into the directory to/Images, which it makes. What
// it made before it failed stays.
func (p *Part) CopyImages(ctx context.Context, to string) error {
	if err := os.MkdirAll(filepath.Join(to, Images), 0o700); err != nil {
		return err
	}
	from := path.Join(p.dir, Images)
	dir, err := p.d.openAny(from, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("checkpoint: %w: %w", err, errs.Invalid)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	left := int64(maxBytes)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := p.copy(path.Join(from, name), filepath.Join(to, Images, name))
		if left -= n; err == nil && (left < 0 || len(names) > maxFiles) {
			err = fmt.Errorf("checkpoint has more than %d bytes or %d files: %w", int64(maxBytes), maxFiles, errs.Invalid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Part) copy(from, to string) (int64, error) {
	in, err := p.d.open(from)
	if err != nil {
		return 0, fmt.Errorf("checkpoint: %w: %w", err, errs.Invalid)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, maxBytes+1))
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return n, err
}

// open opens a regular file of the checkpoint; anything else is refused before it
// is opened.
func (d *Dump) open(name string) (*os.File, error) {
	found, err := d.openAny(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	f, err := procfd.OpenRegular(found)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func (d *Dump) openAny(name string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(d.dir.Fd()), name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
