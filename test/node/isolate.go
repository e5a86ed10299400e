package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable tells the processes of Isolate apart:
//
//	outside ─▶ init (PID 1 of the namespaces, reaps) ─▶ inside
const (
	// machineVariable says that the whole machine is the tests' own, as a virtual
	// one is. There they run as Berth does: systemd, which speaks of cgroups and
	// processes as the machine has them, is in reach.
	machineVariable = "BERTH_TEST_MACHINE"

	// cgroupPrefix begins the names of the tests' cgroups; the pid of outside follows.
	cgroupPrefix = "berth-test-"

	stageVariable  = "BERTH_TEST_STAGE"
	cgroupVariable = "BERTH_TEST_CGROUP"
	stageInit      = "init"
	stageInside    = "inside"
)

// Isolate runs this program again in namespaces of its own: processes, network,
// mounts, IPC and cgroups. What tests leave there is theirs without doubt,
// others on the machine see none of it, and no process outlives the program,
// however it ends. It returns true in the process that is inside. Outside it
// returns false and the exit code, after the inside has ended. There it calls
// prepare first, which has the machine's network; nil is nothing. With
// BERTH_TEST_MACHINE set it makes nothing, and all is inside.
func Isolate(prepare func()) (inside bool, code int, err error) {
	if os.Getenv(machineVariable) != "" {
		return true, 0, nil
	}
	switch os.Getenv(stageVariable) {
	case stageInside:
		return true, 0, enter()
	case stageInit:
		code, err = reap()
	default:
		if prepare != nil {
			prepare()
		}
		code, err = outside()
	}
	return false, code, err
}

// outside starts init, and removes the cgroup that all the rest is in.
func outside() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	sweepCgroups()
	cgroup := fmt.Sprintf("/%s%d", cgroupPrefix, os.Getpid())
	if err := makeCgroups(cgroup); err != nil {
		return 1, err
	}
	defer removeCgroups(cgroup)
	// Who is told to end takes all inside along, and the cgroup.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	c := exec.CommandContext(ctx, self, os.Args[1:]...)
	c.Env = append(os.Environ(), stageVariable+"="+stageInit, cgroupVariable+"="+cgroup)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	return exitCode(c.Run())
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// reap is the life of PID 1: it starts the inside and collects every orphan
// until that ends.
func reap() (int, error) {
	if err := joinCgroups(os.Getenv(cgroupVariable)); err != nil {
		return 1, err
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	if err := os.Setenv(stageVariable, stageInside); err != nil {
		return 1, err
	}
	p, err := os.StartProcess(self, os.Args, &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP},
	})
	if err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == p.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == p.Pid:
			return 1, fmt.Errorf("the tests were ended by %s", status.Signal())
		}
	}
}

// enter prepares the namespaces: mounts are private, /proc and the cgroup
// hierarchies show what is inside, no process is at the top of version 2's,
// /run is empty, lo is up.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("cover /run: %w", err)
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.renew(); err != nil {
			return err
		}
		if err := m.clearTop(); err != nil {
			return err
		}
	}
	// As systemd has it: rslave and rshared need a shared mount.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return nil
}

// cgroupMount is one mounted hierarchy.
type cgroupMount struct{ path, kind, options string }

func cgroupMounts() ([]cgroupMount, error) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []cgroupMount
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[2] == "cgroup" || f[2] == "cgroup2" {
			out = append(out, cgroupMount{path: f[1], kind: f[2], options: f[3]})
		}
	}
	return out, nil
}

// renew mounts the hierarchy again, as the cgroup namespace shows it.
func (m cgroupMount) renew() error {
	if err := unix.Unmount(m.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", m.path, err)
	}
	var own []string
	for o := range strings.SplitSeq(m.options, ",") {
		if m.kind == "cgroup" && !slices.Contains([]string{"rw", "ro", "nosuid", "nodev", "noexec", "relatime"}, o) {
			own = append(own, o)
		}
	}
	if err := unix.Mount(m.kind, m.path, m.kind, 0, strings.Join(own, ",")); err != nil {
		return fmt.Errorf("mount %s with %q: %w", m.path, own, err)
	}
	return nil
}

// leaf is the cgroup of the tests themselves in version 2.
const leaf = "tests"

// clearTop moves init and this process, which are at the top of the namespace,
// into a leaf: version 2 enables no controllers below a cgroup with processes.
func (m cgroupMount) clearTop() error {
	if m.kind != "cgroup2" {
		return nil
	}
	if err := os.Mkdir(filepath.Join(m.path, leaf), 0o755); err != nil {
		return err
	}
	for _, pid := range []string{"1", "0"} { // 0 is who writes
		if err := os.WriteFile(filepath.Join(m.path, leaf, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return fmt.Errorf("move process %s into %s: %w", pid, leaf, err)
		}
	}
	return nil
}

// makeCgroups makes a cgroup in every hierarchy.
func makeCgroups(name string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.kind == "cgroup2" {
			m.enable()
		}
		dir := filepath.Join(m.path, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // version 1 starts them empty
			value, err := os.ReadFile(filepath.Join(m.path, file))
			if err != nil || m.kind == "cgroup2" {
				continue // another hierarchy
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// enable gives the cgroups at the top of version 2 every controller there is:
// systemd enables few. One that cannot be enabled is missed by its tests.
func (m cgroupMount) enable() {
	controllers, _ := os.ReadFile(filepath.Join(m.path, "cgroup.controllers")) // always there
	for _, c := range strings.Fields(string(controllers)) {
		_ = os.WriteFile(filepath.Join(m.path, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

func joinCgroups(name string) error {
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := os.WriteFile(filepath.Join(m.path, name, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sweepCgroups removes those of tests that were killed, and could not.
func sweepCgroups() {
	mounts, _ := cgroupMounts() // without them nothing can be made, either
	for _, m := range mounts {
		entries, _ := os.ReadDir(m.path)
		for _, e := range entries {
			pid, ours := strings.CutPrefix(e.Name(), cgroupPrefix)
			if _, err := os.Stat("/proc/" + pid); ours && errors.Is(err, fs.ErrNotExist) {
				removeCgroups(e.Name())
			}
		}
	}
}

// removeCgroups removes them, and what is below. Their processes have ended
// with the process namespace.
func removeCgroups(name string) {
	mounts, _ := cgroupMounts() // what stays is visible there
	for _, m := range mounts {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(m.path, name), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			_ = os.Remove(d)
		}
	}
}
