package mounts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// tree makes a root file system: names that end in / are directories, those
// with -> links.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, target, link := strings.Cut(name, "->")
		path := filepath.Join(dir, name)
		var err error
		switch {
		case link:
			err = os.Symlink(target, path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte("image's"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// waiting is a process in a mount namespace of its own.
func waiting(t *testing.T) int {
	t.Helper()
	testutil.Root(t)
	c := exec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	return c.Process.Pid
}

func TestReadyTellsWhereAMountCanBePlaced(t *testing.T) {
	outside := tree(t, "secret")
	source := tree(t, "file", "dir/")
	root := tree(t, "etc/", "etc/file", "etc/dir/", "etc/link->file", "etc/out->"+outside+"/secret", "abs->/etc", "gone->/not/there")
	for target, want := range map[string]struct{ file, dir bool }{
		"/etc/file":       {true, false},
		"/etc/dir":        {false, true},
		"/etc/link":       {false, false},
		"/etc/out":        {false, false},
		"/abs/file":       {false, false},
		"/gone":           {false, false},
		"/no/parent":      {false, false},
		"/../../etc/file": {true, false}, // ".." ends at the root
		"/etc/file/below": {false, false},
		"/etc/new-file":   {true, false},
	} {
		if got := Ready(root, filepath.Join(source, "file"), target); got != want.file {
			t.Errorf("a file at %s: %t", target, got)
		}
		if got := Ready(root, filepath.Join(source, "dir"), target); got != want.dir {
			t.Errorf("a directory at %s: %t", target, got)
		}
	}
	if !Ready(root, filepath.Join(source, "dir"), "/etc/new-dir") {
		t.Error("a directory is not made")
	}
	if Ready(root, "/dev/null", "/etc/file") || Ready(root, "/no/such/source", "/etc/file") {
		t.Error("what is neither file nor directory is ready")
	}
	for path, want := range map[string]bool{"etc/new-file": false, "etc/new-dir": true} {
		if info, err := os.Lstat(filepath.Join(root, path)); err != nil || info.IsDir() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

func TestAMountIsSeenInTheContainerOnly(t *testing.T) {
	pid := waiting(t)
	source, root := tree(t, "file"), tree(t, "etc/", "etc/file")
	b, err := OpenBind(filepath.Join(source, "file"), "/etc/file", BindOptions{Exact: true, Attributes: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Place(pid, root, []Placement{b}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(root, "etc/file"):                                     "image's",
		filepath.Join("/proc", strconv.Itoa(pid), "root", root, "etc/file"): "host's",
	} {
		if got, err := os.ReadFile(path); string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	inside := filepath.Join("/proc", strconv.Itoa(pid), "root", root, "etc/file")
	if err := os.WriteFile(inside, []byte("x"), 0o644); err == nil {
		t.Error("a read-only mount is written")
	}
}

// Whoever shares the file system may swap what was looked at.
func TestALinkThatCameLaterIsNotFollowed(t *testing.T) {
	pid := waiting(t)
	outside, source, root := tree(t, "secret", "dir/"), tree(t, "file"), tree(t, "etc/", "etc/file")
	if !Ready(root, filepath.Join(source, "file"), "/etc/file") {
		t.Fatal("not ready")
	}
	b, err := OpenBind(filepath.Join(source, "file"), "/etc/file", BindOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.Remove(filepath.Join(root, "etc/file")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "etc/file")); err != nil {
		t.Fatal(err)
	}
	if err := Place(pid, root, []Placement{b}); err == nil {
		t.Error("placed at a link")
	}
	if err := os.Symlink(filepath.Join(outside, "dir"), filepath.Join(root, "dev")); err != nil {
		t.Fatal(err)
	}
	if err := Place(pid, root, []Placement{Devices{{Name: "null", Mode: unix.S_IFCHR | 0o666, Number: unix.Mkdev(1, 3)}}}); err == nil {
		t.Error("devices are made behind a link")
	}
	if left, _ := os.ReadDir(filepath.Join(outside, "dir")); len(left) > 0 {
		t.Errorf("made outside: %v", left)
	}
	if OwnDev(root) {
		t.Error("a link passes for /dev")
	}
}
