package libct

import (
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
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
	return pidfd.Signal(int(c.pidfd.Fd()), unix.SIGKILL)
}

// hold has no process of the container come back from the kernel until thaw:
// from here on, although it does not wait until all are asleep. False where the
// host cannot.
func (c *container) hold() bool {
	file, frozen, _ := c.paths.Freezer()
	return file != "" && cgroup.Write(file, frozen) == nil
}

// thaw resumes a frozen container.
func (c *container) thaw() error { return c.paths.Thaw() }
