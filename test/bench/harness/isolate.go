package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// The program runs as three processes, told apart by this variable:
//
//	outside ─▶ init (PID 1 of the namespaces, reaps) ─▶ measure
const (
	stageVariable = "BERTH_PEERS_STAGE"
	stageInit     = "init"
	stageMeasure  = "measure"
)

// CgroupParent is where all pods of the run are.
const CgroupParent = "/berth-peers"

// isolate runs init in namespaces of its own and waits for it.
func isolate(ctx context.Context, s Settings) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, append(slices.Clone(os.Args[1:]), "-bin", s.Bin, "-cache", s.Cache, "-dir", s.Dir)...)
	c.Env = append(os.Environ(), stageVariable+"="+stageInit)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
	c.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	return c.Run()
}

// reap is the life of PID 1: it starts the measuring process and collects
// every orphan (shims among them) until that process ends, which it is told to
// when ctx does.
func reap(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Set, not appended: of two values of a variable the first counts.
	if err := os.Setenv(stageVariable, stageMeasure); err != nil {
		return err
	}
	p, err := os.StartProcess(self, os.Args, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGTERM) }) // it may have ended
	defer stop()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == p.Pid && status.ExitStatus() != 0:
			return fmt.Errorf("measuring ended with %d", status.ExitStatus())
		case pid == p.Pid:
			return nil
		}
	}
}

// enter prepares the namespaces: mounts are private, /proc shows the new
// processes, /run and the CNI caches are empty, lo is up.
func enter(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, target := range []string{"/run", "/var/lib"} {
		if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("cover %s: %w", target, err)
		}
	}
	// A shared mount, as systemd's / is: rslave and rshared need one.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return nil
}

// removeCgroups removes the run's cgroups in every hierarchy. Their processes
// ended with the PID namespace.
func removeCgroups() {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + CgroupParent) // the pattern is well formed
	for _, root := range append(roots, "/sys/fs/cgroup"+CgroupParent) {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error { // a missing root is fine
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			_ = os.Remove(d) // what stays is visible there
		}
	}
}
