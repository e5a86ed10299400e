package erofs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount mounts an image with its devices at target, read only: from the files
// themselves, or through loop devices where the kernel cannot (before Linux 6.12).
func Mount(image string, devices []string, target string) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close() // read only
		}
	}()
	for _, p := range append([]string{image}, devices...) {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	err := mount(files, target)
	if errors.Is(err, unix.ENOTBLK) {
		err = mountLoop(files, target)
	}
	return err
}

// mount mounts the first of the files, whose devices the others are.
func mount(files []*os.File, target string) error {
	ctx, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen erofs", err)
	}
	defer unix.Close(ctx)
	key := "source"
	for _, f := range files {
		// The kernel takes short strings only.
		if err := unix.FsconfigSetString(ctx, key, fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
			return complain(ctx, key+" "+f.Name(), err)
		}
		key = "device"
	}
	if err := unix.FsconfigSetFlag(ctx, "ro"); err != nil {
		return complain(ctx, "ro", err)
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return complain(ctx, "create erofs", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// complain adds what the kernel has to say: a context is also a log.
func complain(ctx int, doing string, err error) error {
	buf := make([]byte, 1024)
	if n, readErr := unix.Read(ctx, buf); readErr == nil && n > 0 {
		return fmt.Errorf("%s: %w (%s)", doing, err, strings.TrimSpace(string(buf[:n])))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// mountLoop gives each file a loop device, which goes when the mount goes.
func mountLoop(files []*os.File, target string) error {
	var loops []*os.File
	defer func() {
		for _, l := range loops {
			_ = l.Close() // what is not mounted detaches itself
		}
	}()
	for _, f := range files {
		l, err := attach(f)
		if err != nil {
			return fmt.Errorf("loop device for %s: %w", f.Name(), err)
		}
		loops = append(loops, l)
	}
	return mount(loops, target)
}

// attach returns a free loop device that shows f and detaches itself when it is
// closed last.
func attach(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 64 { // others take free ones too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		l, err := os.Open(fmt.Sprintf("/dev/loop%d", n))
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: blockSize}
		config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
		if err = unix.IoctlLoopConfigure(int(l.Fd()), &config); err == nil {
			return l, nil
		}
		_ = l.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
	return nil, unix.EBUSY
}
