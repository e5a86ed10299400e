// Package rootfs mounts the root file systems of containers: a writable directory
// over the layers of an image, by overlay.
//
// Writable directories lie below <root>, mounts below <state>. A root file system
// is known by an id; its record lies beside its writable directory and outlives a
// reboot. One goroutine per Roots finishes unmounts in the background. Locks are
// by id, and nothing else is locked under them but what package layer does, and
// that of the projects by which the file system counts what is written.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/idmap"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/mountpoint"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	rootVersion = 1
	rootFile    = "root.json"
	idName      = "root file system id" // in errors
	upperDir    = "upper"
	workDir     = "work"
	emptyLayer  = ".empty" // begins the names of those that overlay needs where an image has too few
	// trashPrefix begins the name of what is being removed.
	trashPrefix = ".ingest-"
	minRoom     = 4 << 10 // what making a name may need: a block
)

// Root is one root file system: a writable directory over a stack of layers.
type Root struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// Layers lists the layers, the lowest first, as Stack has returned them.
	Layers []digest.Digest `json:"layers"`
	// UIDMappings and GIDMappings are those of the container's user namespace,
	// or empty where it has none.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
	// SELinuxLabel is what every file shows as, or "".
	SELinuxLabel string `json:"selinuxLabel,omitempty"`
	// Tree, where set, is what View shows instead of layers.
	Tree string `json:"-"`
	// Changes, where set, is what a container had written (package changes), and what
	// a new root file system begins with. It is hostile.
	Changes io.ReadSeeker `json:"-"`
	// Made is when List's root file systems were made.
	Made time.Time `json:"-"`
}

// Roots mounts root file systems: the mount of ID at <mounts>/ID/fs, its writable
// directory and its record below <writable>/ID. The record outlives a reboot,
// the mount does not; Mount makes it again.
//
// <mounts>/ID keeps the host's users from what is in there, such as programs
// that are setuid, which the mount's own mode does not. With a user namespace the
// group that is root's there may pass.
//
// The overlay is mounted without `volatile`. That option would make the fsync of
// a database in a container do nothing, and after a power cut the kernel would
// refuse the directory; what it saves, the sync of the whole file system by the
// last unmount, happens here in the background instead.
type Roots struct {
	layers   *layer.Store
	writable string
	mounts   string
	locks    keylock.Locks
	reaper   reaper
	projects *projects
	usage    usageCache
	unmounts atomic.Uint64
}

// Open returns the root file systems over layers and starts the goroutine
// that Close ends. What a crash left half-made or half-removed goes.
func Open(layers *layer.Store, writable, mounts string) (*Roots, error) {
	r := &Roots{layers: layers, writable: writable, mounts: mounts}
	if err := errors.Join(os.MkdirAll(writable, 0o700), os.MkdirAll(mounts, 0o711)); err != nil {
		return nil, fmt.Errorf("make root file systems: %w", err)
	}
	if err := r.sweep(); err != nil {
		return nil, err
	}
	var err error
	if r.projects, err = openProjects(writable); err != nil {
		return nil, fmt.Errorf("make root file systems: %w", err)
	}
	r.reaper.start()
	return r, nil
}

// sweep removes what only a crash can have left.
func (r *Roots) sweep() error {
	for _, dir := range []string{r.writable, r.mounts} {
		names, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("sweep root file systems: %w", err)
		}
		for _, n := range names {
			if !strings.HasPrefix(n.Name(), trashPrefix) {
				continue
			}
			p := filepath.Join(dir, n.Name())
			_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // not mounted as a rule
			if err := os.RemoveAll(p); err != nil {
				return fmt.Errorf("sweep root file systems: %w", err)
			}
		}
	}
	return nil
}

// Close waits for unmounts that are still under way. Root file systems stay
// mounted.
func (r *Roots) Close() error {
	r.reaper.stop()
	return r.projects.close()
}

// Mount mounts the root file system and returns its path. It is idempotent: one
// that is mounted already stays as it is. One whose record is still there, after
// a reboot, gets its old layers and its old content.
func (r *Roots) Mount(ctx context.Context, root Root) (string, error) {
	if err := statefile.CheckName(idName, root.ID); err != nil {
		return "", err
	}
	unlock, err := r.locks.Lock(ctx, root.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	target := r.target(root.ID)
	if mountpoint.Is(target) {
		return target, nil
	}
	fresh := false
	old, err := r.record(root.ID)
	if err == nil {
		root = old
	} else if fresh, err = r.prepare(ctx, root); err != nil {
		r.abandon(root.ID, fresh)
		return "", fmt.Errorf("prepare root file system %s: %w", root.ID, room.Explain(err, r.writable, minRoom))
	}
	if err = r.makeTarget(root); err == nil {
		err = r.mount(ctx, root, target)
	}
	if err != nil {
		_ = r.removeTarget(root.ID) // empty
		r.abandon(root.ID, fresh)
		return "", fmt.Errorf("mount root file system %s: %w", root.ID, room.Explain(err, target, minRoom))
	}
	return target, nil
}

// abandon removes a writable directory that could not be mounted, if it is fresh:
// another holds what a container has written.
func (r *Roots) abandon(id string, fresh bool) {
	if fresh {
		_ = os.RemoveAll(filepath.Join(r.writable, id)) // Check finds what stays
	}
}

func (r *Roots) home(id string) string   { return filepath.Join(r.mounts, id) }
func (r *Roots) target(id string) string { return filepath.Join(r.home(id), "fs") }

// makeTarget makes the place for the mount.
func (r *Roots) makeTarget(root Root) error {
	gid, err := idmap.HostID(0, root.GIDMappings)
	if err != nil {
		return err
	}
	for _, dir := range []string{r.home(root.ID), r.target(root.ID)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if gid == 0 {
		return nil
	}
	return errors.Join(os.Lchown(r.home(root.ID), -1, gid), os.Chmod(r.home(root.ID), 0o710))
}

// removeTarget takes away what makeTarget made.
func (r *Roots) removeTarget(id string) error {
	_ = os.Remove(r.target(id)) // else what is around it stays too
	if err := os.Remove(r.home(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remount mounts a root file system again from its record. The error is of kind
// NotFound where it has none.
func (r *Roots) Remount(ctx context.Context, id string) (string, error) {
	if err := statefile.CheckName(idName, id); err != nil {
		return "", err
	}
	root, err := r.record(id)
	if err != nil {
		return "", fmt.Errorf("root file system %s: %w: %w", id, err, errs.NotFound)
	}
	return r.Mount(ctx, root)
}

// prepare makes the writable directory and reports whether it was not there.
func (r *Roots) prepare(ctx context.Context, root Root) (fresh bool, err error) {
	base := filepath.Join(r.writable, root.ID)
	err = os.Mkdir(base, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if fresh = err == nil; fresh {
		_, _ = r.projects.assign(base) // else Usage walks
	}
	return fresh, r.fill(ctx, root)
}

// fill makes what is in the writable directory. The root of what is written shows
// as the container's root directory, so it takes owner and mode of the layers'.
func (r *Roots) fill(ctx context.Context, root Root) error {
	root.Version = rootVersion
	base := filepath.Join(r.writable, root.ID)
	if root.Changes != nil {
		return r.restore(ctx, root, base)
	}
	for _, d := range []string{upperDir, workDir} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	upper := filepath.Join(base, upperDir)
	var st unix.Stat_t
	st.Mode = 0o755
	if n := len(root.Layers); n > 0 {
		lower, err := r.layers.Lower(ctx, root.Layers)
		if err != nil {
			return err
		}
		if err := unix.Lstat(filepath.Join(lower.Base, lower.Dirs[len(lower.Dirs)-1]), &st); err != nil {
			return fmt.Errorf("layer %s: %w", root.Layers[n-1], err)
		}
	}
	uid, uidErr := idmap.HostID(st.Uid, root.UIDMappings)
	gid, gidErr := idmap.HostID(st.Gid, root.GIDMappings)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	if uid != 0 || gid != 0 {
		if err := unix.Lchown(upper, uid, gid); err != nil {
			return err
		}
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return err
	}
	return statefile.Write(filepath.Join(base, rootFile), root)
}

func (r *Roots) record(id string) (Root, error) {
	var root Root
	err := statefile.Read(filepath.Join(r.writable, id, rootFile), &root)
	if err == nil && (root.Version != rootVersion || root.ID != id) {
		err = fmt.Errorf("record of version %d for %q: %w", root.Version, root.ID, statefile.ErrCorrupt)
	}
	return root, err
}

// Unmount unmounts a root file system and removes its writable directory. It is
// idempotent. Both names are gone when it returns; the rest is done in the
// background.
func (r *Roots) Unmount(ctx context.Context, id string) error {
	if err := statefile.CheckName(idName, id); err != nil {
		return err
	}
	unlock, err := r.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r.usage.forget(id)
	j := job{mount: -1}
	if target := r.target(id); mountpoint.Is(target) {
		if j.mount, err = detach(target); err != nil {
			return fmt.Errorf("unmount root file system %s: %w", id, err)
		}
	}
	if err := r.removeTarget(id); err != nil {
		finish([]job{j})
		return err
	}
	// One of the same id may still be on its way out.
	trash := filepath.Join(r.writable, trashPrefix+id+"-"+strconv.FormatUint(r.unmounts.Add(1), 10))
	project := r.projects.of(filepath.Join(r.writable, id))
	err = os.Rename(filepath.Join(r.writable, id), trash)
	if err == nil {
		j.trash = trash
		r.projects.release(project)
	} else if !errors.Is(err, fs.ErrNotExist) {
		finish([]job{j})
		return err
	}
	r.reaper.add(j)
	return nil
}

// detach takes the mount off its path and returns a descriptor that keeps it
// alive: the last one to let go of an overlay waits for a sync of the whole file
// system below it.
func detach(target string) (int, error) {
	fd, err := unix.Open(target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// List returns the records of all root file systems, mounted or not. The layers
// that they name must stay. damaged lists ids whose record cannot be read.
func (r *Roots) List() (all []Root, damaged []string, err error) {
	names, err := os.ReadDir(r.writable)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), trashPrefix) {
			continue
		}
		root, err := r.record(n.Name())
		if err != nil {
			damaged = append(damaged, n.Name())
			continue
		}
		if info, err := os.Lstat(filepath.Join(r.writable, n.Name(), rootFile)); err == nil {
			root.Made = info.ModTime()
		}
		all = append(all, root)
	}
	return all, damaged, nil
}

// Mounted returns the ids of what is mounted.
func (r *Roots) Mounted() ([]string, error) {
	names, err := os.ReadDir(r.mounts)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range names {
		if mountpoint.Is(r.target(n.Name())) {
			all = append(all, n.Name())
		}
	}
	return all, nil
}
