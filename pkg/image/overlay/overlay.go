// Package overlay mounts stacks of directories with the kernel's overlay. It
// makes none of them and keeps nothing.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// Opaque is the extended attribute of directories that hide what is below; its value
// is then "y".
const Opaque = "trusted.overlay.opaque"

// MaxStack is how many layers the kernel stacks: OVL_MAX_STACK.
const MaxStack = 500

// maxParamString is what fsconfig takes as one string.
const maxParamString = 255

// Mount is what to mount.
type Mount struct {
	Lower       []string // directories, the lowest layer first; two at least without Upper
	Upper, Work string   // empty for a mount that nobody writes to
	Label       string   // of SELinux, that all files show; may be empty
}

// Attach mounts it at target by the best way that the kernel has.
func (m Mount) Attach(target string) error {
	err := m.mount(target)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// lowerdir+ appeared in Linux 6.7, fsopen for overlay in 6.5.
		if legacy := m.mountLegacy(target); legacy == nil {
			return nil
		}
	}
	return err
}

// mount uses the mount API of file descriptors: one parameter per layer, so
// that neither the number of layers nor the length of their paths meets the page
// that mount(2) takes.
func (m Mount) mount(target string) error {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	if err := m.configure(ctx); err != nil {
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

func (m Mount) configure(ctx int) error {
	params := [][2]string{{"source", "berth"}, {"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}}
	if m.Label != "" {
		params = append(params, [2]string{"context", m.Label})
	}
	for _, p := range params {
		if err := unix.FsconfigSetString(ctx, p[0], p[1]); err != nil {
			return complain(ctx, p[0]+"="+p[1], err)
		}
	}
	for i := len(m.Lower) - 1; i >= 0; i-- { // overlay wants the highest first
		if err := setDir(ctx, "lowerdir+", m.Lower[i]); err != nil {
			return err
		}
	}
	if m.Upper == "" {
		return nil
	}
	if err := setDir(ctx, "upperdir", m.Upper); err != nil {
		return err
	}
	return setDir(ctx, "workdir", m.Work)
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
	if err := unix.FsconfigSetString(ctx, key, procfd.Path(fd)); err != nil {
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
func (m Mount) mountLegacy(target string) error {
	var lower []string
	for i := len(m.Lower) - 1; i >= 0; i-- {
		fd, err := unix.Open(m.Lower[i], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: m.Lower[i], Err: err}
		}
		defer unix.Close(fd)
		lower = append(lower, procfd.Path(fd))
	}
	options := "index=off,metacopy=off,redirect_dir=nofollow,lowerdir=" + strings.Join(lower, ":")
	if m.Upper != "" {
		options += ",upperdir=" + m.Upper + ",workdir=" + m.Work
	}
	if m.Label != "" {
		options += fmt.Sprintf(",context=%q", m.Label)
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for mount(2); Linux 6.7 has no such limit: %w", len(m.Lower), errs.Unsupported)
	}
	return os.NewSyscallError("mount overlay", unix.Mount("berth", target, "overlay", 0, options))
}
