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

// thaw resumes a frozen container.
func (c *container) thaw() error {
	file, want := "cgroup.freeze", "0"
	dir := c.paths[""]
	if freezer := c.paths["freezer"]; freezer != "" {
		dir, file, want = freezer, "freezer.state", "THAWED"
	}
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, file)
	state, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(state)) == want {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(want), 0)
	}
	if errors.Is(err, unix.ENODEV) { // removed meanwhile
		return nil
	}
	return err
}
