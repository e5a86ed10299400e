package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// sleepers makes a cgroup with some processes in it, one of them further below,
// and returns it.
func sleepers(t *testing.T, hierarchy string) string {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup", hierarchy, "berth-cgroup-test")
	below := filepath.Join(dir, "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, below, below} {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill() })
		go func() { _ = c.Wait() }() // killed, as it should be
		if err := Write(filepath.Join(d, "cgroup.procs"), strconv.Itoa(c.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := Remove(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestKillEndsAllOfACgroup(t *testing.T) {
	testutil.Root(t)
	hierarchies := map[string]string{"v1": "freezer", "hybrid": "unified"}
	if cgroups.IsCgroup2UnifiedMode() {
		hierarchies = map[string]string{"v2": ""}
	}
	for name, hierarchy := range hierarchies {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", hierarchy)); errors.Is(err, fs.ErrNotExist) {
				t.Skip("this machine is not hybrid")
			}
			dir := sleepers(t, hierarchy)
			if err := Kill(dir); err != nil {
				t.Fatal(err)
			}
			testutil.Await(t, 10*time.Second, func() error {
				pids, err := cgroups.GetAllPids(dir)
				if err == nil && len(pids) > 0 {
					err = fmt.Errorf("still there: %v", pids)
				}
				return err
			})
		})
	}
}

func TestKillOfWhatIsGoneSucceeds(t *testing.T) {
	if err := Kill("/sys/fs/cgroup/no/such/cgroup"); err != nil {
		t.Error(err)
	}
}

func TestACgroupIsFoundBelowWhatIsMounted(t *testing.T) {
	for _, c := range []struct {
		root, own, want string
		fails           bool
	}{
		{root: "/", own: "/kubepods/pod1/c", want: "/sys/fs/cgroup/pids/kubepods/pod1/c"},
		{root: "/", own: "/", want: "/sys/fs/cgroup/pids"},
		{root: "/docker/x", own: "/docker/x/berth/c", want: "/sys/fs/cgroup/pids/berth/c"},
		{root: "/docker/x", own: "/docker/y", fails: true},
		{root: "/docker/x", own: "/docker/xy", fails: true},
	} {
		h := cgroups.Mount{Mountpoint: "/sys/fs/cgroup/pids", Root: c.root, Subsystems: []string{"pids"}}
		got, err := directory(h, map[string]string{"pids": c.own})
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s in %s: %q, %v", c.own, c.root, got, err)
		}
	}
}

func TestWarmingMovesNobody(t *testing.T) {
	testutil.Root(t)
	v, err := OpenV1()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 3 {
		v.Warm()
	}
	testutil.Await(t, 10*warmFor, func() error {
		if v.warmer(true) {
			return errors.New("it does not end")
		}
		return nil
	})
	if took := time.Since(began); v.Here() && took < warmFor {
		t.Errorf("warm for %s", took)
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || string(after) != string(before) {
		t.Errorf("%v, before %s, after %s", err, before, after)
	}
}

func TestNothingIsMadeInACgroup(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "cgroup.kill"), "1"); !Gone(err) {
		t.Errorf("got %v", err)
	}
	if !Gone(unix.ENODEV) || Gone(unix.EACCES) {
		t.Error("wrong errors mean that a cgroup is gone")
	}
}

// A file of a cgroup can be polled as a pipe can, and answers EAGAIN: memory.reclaim
// does where there is less to reclaim than was asked for.
func TestARefusalToBeTriedAgainIsAnAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe)
	for err == nil {
		_, err = unix.Write(pipe, make([]byte, 4096))
	}
	answer := make(chan error, 1)
	go func() { answer <- Write(path, "40000000") }()
	select {
	case err := <-answer:
		if !errors.Is(err, unix.EAGAIN) {
			t.Errorf("got %v", err)
		}
	case <-time.After(testutil.Patience(2 * time.Second)):
		t.Error("it waits")
	}
}
