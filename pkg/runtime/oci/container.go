package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

const (
	noteName    = "note.json"
	noteVersion = 1
	// lockName is a file that is locked while a command makes a process.
	lockName = "lock"
	// pidPrefix begins the names of files that commands write pids to.
	pidPrefix = "pid-"
)

// note is what is on disk about a container. It is written before the command
// makes the container, and once more, with the process, after.
type note struct {
	Version int             `json:"version"`
	Command runtime.Command `json:"command"`
	// Cgroup is the specification's cgroupsPath.
	Cgroup string `json:"cgroup"`
	// PID and Begun name the first process; 0 where the command has not told it.
	PID   int    `json:"pid,omitempty"`
	Begun uint64 `json:"begun,omitempty"`
	// Tracking is the cgroup that execs have sub-cgroups in.
	Tracking string `json:"tracking,omitempty"`
}

// container is one that a command made. What is in it does not change once it is
// in the engine's map, but for subs.
type container struct {
	id      string
	dir     string
	sockets string
	driver  cgroup.Driver
	systemd bool
	note    note
	paths   cgroup.Paths
	// pidfd is the first process's; nil where it had ended before we looked.
	pidfd *os.File

	mu   sync.Mutex
	subs *cgroup.Subs
	sub  string // how execs are told their sub-cgroup: a format, empty if not at all
	once sync.Once
}

func (e *Engine) newContainer(id string) *container {
	return &container{id: id, dir: filepath.Join(e.dir, id), sockets: e.sockets, driver: e.driver, systemd: e.driver.Systemd}
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *container) write() error {
	c.note.Version = noteVersion
	return statefile.Write(c.path(noteName), &c.note)
}

// open finds what the note tells of.
func (c *container) open() (err error) {
	if c.paths, err = c.driver.Paths(c.note.Cgroup); err != nil || c.note.PID == 0 {
		return err
	}
	fd, err := pidfd.Open(c.note.PID, c.note.Begun)
	if err == nil {
		c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return nil // it has ended
	}
	return err
}

// made takes over the process that the command has made, which nobody reaps
// meanwhile.
func (c *container) made(pid int) (err error) {
	c.note.PID = pid
	if c.note.Begun, err = pidfd.Begun(pid); err != nil {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	if c.pidfd == nil {
		return c.stopped()
	}
	if c.note.Tracking, err = c.tracking(pid); err != nil {
		return err
	}
	return c.write()
}

// tracking returns the cgroup in which execs get sub-cgroups: that of the freezer,
// or in v2 that of the first process, which crun puts below the scope.
func (c *container) tracking(pid int) (string, error) {
	if dir := c.paths["freezer"]; dir != "" || c.paths[""] == "" {
		return dir, nil
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", err
	}
	own, _, _ := strings.Cut(strings.TrimPrefix(string(data), "0::"), "\n")
	name := "/" + filepath.Base(c.paths[""])
	if _, below, ok := strings.Cut(own, name+"/"); ok {
		return filepath.Join(c.paths[""], below), nil
	}
	return c.paths[""], nil
}

func (c *container) execs() *cgroup.Subs {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs == nil {
		c.subs = &cgroup.Subs{Parent: c.note.Tracking}
	}
	return c.subs
}

// ended reports whether the first process has ended.
func (c *container) ended() bool {
	if c.pidfd == nil {
		return true
	}
	over, err := pidfd.Over(int(c.pidfd.Fd()), 0)
	return err == nil && over
}

// awaitEnd waits until the first process has ended, reaped or not.
func (c *container) awaitEnd(ctx context.Context) error {
	if c.pidfd == nil {
		return nil
	}
	if err := pidfd.AwaitEnd(ctx, int(c.pidfd.Fd())); err != nil {
		return fmt.Errorf("process %d does not end: %w", c.note.PID, err)
	}
	return nil
}

// stopped is the error of verbs that need a first process that runs.
func (c *container) stopped() error {
	return fmt.Errorf("container %s has stopped: %w", c.id, errs.Conflict)
}

// pidFrom reads a pid that a command wrote.
func pidFrom(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%.20q is no pid", data)
	}
	return pid, nil
}
