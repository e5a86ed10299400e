package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/test/testutil"
)

// The kernel need not have SELinux to keep its attribute.
func TestVolumesThatAskForItGetTheContainersLabel(t *testing.T) {
	testutil.Root(t)
	volume, other, outside := labelled(t), labelled(t), labelled(t)
	if err := os.Symlink(outside, filepath.Join(volume, "link")); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	n.host = host.Facts{SELinux: true}
	n.restart()
	c := testConfig("c")
	c.Mounts = []*cri.Mount{
		{ContainerPath: "/volume", HostPath: volume, SelinuxRelabel: true},
		{ContainerPath: "/file", HostPath: filepath.Join(other, "dir/file"), SelinuxRelabel: true},
		{ContainerPath: "/other", HostPath: other},
	}
	c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s0:c1,c2"}}}
	n.create(c)
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	for path, want := range map[string]string{
		volume: label, volume + "/dir": label, volume + "/dir/file": label, volume + "/link": label,
		other: "", other + "/dir": "", other + "/dir/file": label,
		outside: "", outside + "/dir": "", outside + "/dir/file": "",
	} {
		if got := labelOf(t, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestVolumesOfUnconfinedContainersKeepTheirLabels(t *testing.T) {
	testutil.Root(t)
	volume := labelled(t)
	n := newNode(t)
	n.host = host.Facts{SELinux: true}
	n.restart()
	c := testConfig("c")
	c.Mounts = []*cri.Mount{{ContainerPath: "/volume", HostPath: volume, SelinuxRelabel: true}}
	n.create(c)
	if got := labelOf(t, volume); got != "" {
		t.Errorf("%q", got)
	}
}

// labelled makes a directory with something in it, on a file system that keeps
// labels.
func labelled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dir/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func labelOf(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 100)
	n, err := unix.Lgetxattr(path, "security.selinux", buf)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
