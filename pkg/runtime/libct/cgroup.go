package libct

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// killAll ends every process of the container, frozen ones too.
func (c *container) killAll() error {
	if err := c.thaw(); err != nil {
		return err
	}
	dir := c.paths.Tracking()
	if dir == "" {
		ct, err := c.load()
		if err != nil {
			return err
		}
		return ct.Signal(unix.SIGKILL)
	}
	if err := cgroup.Kill(dir); err != nil {
		return err
	}
	if c.pidfd == nil {
		return nil
	}
	// The first process may sit outside if it was moved by somebody.
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// freezer returns the file that freezes the container's processes, and what to
// write into it. It is empty where the host has none.
func (c *container) freezer() (file, frozen, thawed string) {
	if dir := c.paths["freezer"]; dir != "" {
		return filepath.Join(dir, "freezer.state"), "FROZEN", "THAWED"
	}
	if dir := c.paths[""]; dir != "" {
		return filepath.Join(dir, "cgroup.freeze"), "1", "0"
	}
	return "", "", ""
}

// hold has no process of the container come back from the kernel until thaw:
// from here on, although it does not wait until all are asleep. False where the
// host cannot.
func (c *container) hold() bool {
	file, frozen, _ := c.freezer()
	return file != "" && os.WriteFile(file, []byte(frozen), 0) == nil
}

// thaw resumes a frozen container.
func (c *container) thaw() error {
	file, _, thawed := c.freezer()
	if file == "" {
		return nil
	}
	state, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(state)) == thawed {
		return nil
	}
	if err == nil {
		err = os.WriteFile(file, []byte(thawed), 0)
	}
	if errors.Is(err, unix.ENODEV) { // removed meanwhile
		return nil
	}
	return err
}
