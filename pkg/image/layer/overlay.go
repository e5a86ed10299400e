package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	maxStack       = 500 // OVL_MAX_STACK
	maxParamString = 255 // that fsconfig takes as one string
)

// overlay is what to mount: directories, the lowest layer first.
type overlay struct {
	lower       []string
	upper, work string
	label       string
}

// mount mounts root at target.
func (r *Roots) mount(root Root, target string) error {
	if len(root.Layers) > maxStack {
		return fmt.Errorf("%d layers, of which the kernel stacks %d: %w", len(root.Layers), maxStack, errs.Unsupported)
	}
	layers, writable := r.layers.dir, filepath.Join(r.writable, root.ID)
	if len(root.UIDMappings) > 0 || len(root.GIDMappings) > 0 {
		m, err := r.mapped(root)
		if err != nil {
			return err
		}
		defer m.close()
		layers = m.dir
	}
	o := overlay{upper: filepath.Join(writable, upperDir), work: filepath.Join(writable, workDir), label: root.SELinuxLabel}
	for _, l := range root.Layers {
		o.lower = append(o.lower, filepath.Join(layers, name(l), treeDir))
	}
	if len(o.lower) == 0 { // an image without layers: overlay needs one
		empty := filepath.Join(r.writable, ingestPrefix+"empty")
		if err := os.MkdirAll(empty, 0o755); err != nil {
			return err
		}
		o.lower = []string{empty}
	}
	return o.attach(target)
}

// attach mounts the overlay at target by the best way that the kernel has.
func (o overlay) attach(target string) error {
	err := o.mount(target)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// lowerdir+ appeared in Linux 6.7, fsopen for overlay in 6.5.
		if legacy := o.mountLegacy(target); legacy == nil {
			return nil
		}
	}
	return err
}

// mount uses the mount API of file descriptors: one parameter per layer, so
// that neither the number of layers nor the length of their paths meets the page
// that mount(2) takes.
func (o overlay) mount(target string) error {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	if err := o.configure(ctx); err != nil {
		return err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return complain(ctx, "create overlay", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

func (o overlay) configure(ctx int) error {
	params := [][2]string{{"source", "berth"}, {"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}}
	if o.label != "" {
		params = append(params, [2]string{"context", o.label})
	}
	for _, p := range params {
		if err := unix.FsconfigSetString(ctx, p[0], p[1]); err != nil {
			return complain(ctx, p[0]+"="+p[1], err)
		}
	}
	for i := len(o.lower) - 1; i >= 0; i-- { // overlay wants the highest first
		if err := setDir(ctx, "lowerdir+", o.lower[i]); err != nil {
			return err
		}
	}
	if o.upper == "" {
		return nil
	}
	if err := setDir(ctx, "upperdir", o.upper); err != nil {
		return err
	}
	return setDir(ctx, "workdir", o.work)
}

// setDir sets a parameter to a directory, by a short name where its own is too
// long.
func setDir(ctx int, key, dir string) error {
	if len(dir) <= maxParamString {
		if err := unix.FsconfigSetString(ctx, key, dir); err != nil {
			return complain(ctx, key+"="+dir, err)
		}
		return nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(ctx, key, procPath(fd)); err != nil {
		return complain(ctx, key+"="+dir, err)
	}
	return nil
}

// complain adds what the kernel has to say: a context is also a log.
func complain(ctx int, doing string, err error) error {
	buf := make([]byte, 1024)
	if n, readErr := unix.Read(ctx, buf); readErr == nil && n > 0 {
		return fmt.Errorf("%s: %w (%s)", doing, err, strings.TrimSpace(string(buf[:n])))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// mountLegacy uses mount(2), which takes all options in one page: descriptors
// make the paths short.
func (o overlay) mountLegacy(target string) error {
	var lower []string
	for i := len(o.lower) - 1; i >= 0; i-- {
		fd, err := unix.Open(o.lower[i], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: o.lower[i], Err: err}
		}
		defer unix.Close(fd)
		lower = append(lower, procPath(fd))
	}
	options := "index=off,metacopy=off,redirect_dir=nofollow,lowerdir=" + strings.Join(lower, ":")
	if o.upper != "" {
		options += ",upperdir=" + o.upper + ",workdir=" + o.work
	}
	if o.label != "" {
		options += fmt.Sprintf(",context=%q", o.label)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for mount(2); Linux 6.7 has no such limit: %w", len(o.lower), errs.Unsupported)
	}
	return os.NewSyscallError("mount overlay", unix.Mount("berth", target, "overlay", 0, options))
}
