package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
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

const testLabel = "system_u:object_r:container_file_t:s0:c1,c2"

// confined is a container with a label, of a node with SELinux.
func confined(t *testing.T) (*node, *cri.ContainerConfig) {
	t.Helper()
	n := newNode(t)
	n.host = host.Facts{SELinux: true}
	n.restart()
	c := testConfig("c")
	c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{SelinuxOptions: &cri.SELinuxOption{Level: "s0:c1,c2"}}}
	return n, c
}

func TestTheRootFileSystemAndImageVolumesAreMountedWithTheLabel(t *testing.T) {
	testutil.Root(t) // what the pod has is labelled too
	n, c := confined(t)
	c.Mounts = []*cri.Mount{{ContainerPath: "/image", Image: &cri.ImageSpec{Image: "app"}}}
	n.create(c)
	if want := []string{testLabel, testLabel}; !slices.Equal(n.images.labels, want) {
		t.Errorf("labels %q, want %q", n.images.labels, want)
	}
	n, c = confined(t)
	c.Linux.SecurityContext.SelinuxOptions = nil
	c.Mounts = []*cri.Mount{{ContainerPath: "/image", Image: &cri.ImageSpec{Image: "app"}}}
	n.create(c)
	if want := []string{"", ""}; !slices.Equal(n.images.labels, want) {
		t.Errorf("without options: labels %q", n.images.labels)
	}
}

func TestWhatBerthMakesForAPodGetsTheLabelAndTheHostsDoesNot(t *testing.T) {
	testutil.Root(t)
	n, c := confined(t)
	dir := labelled(t)
	pod := testPod()
	pod.Shm, pod.ResolvConf, pod.Hosts = dir, dir+"/dir/file", ""
	n.images.config.Volumes = map[string]struct{}{"/made": {}}
	id, err := n.Create(t.Context(), pod, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/dir/file", filepath.Join(n.root, "containers", id, "volumes/0")} {
		if got := labelOf(t, path); got != testLabel {
			t.Errorf("%s: %q", path, got)
		}
	}
	before := labelOf(t, "/dev/shm")
	c.Metadata.Name, pod.Shm = "d", "/dev/shm"
	if _, err := n.Create(t.Context(), pod, c); err != nil || labelOf(t, "/dev/shm") != before {
		t.Errorf("the host's /dev/shm: %q, %v", labelOf(t, "/dev/shm"), err)
	}
}

func TestTheHostsDirectoriesAreNotRelabelled(t *testing.T) {
	testutil.Root(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	n, c := confined(t)
	for _, path := range []string{"/", "/etc", "/etc/", "/usr/../etc", "/var/lib", "/home", link} {
		c.Mounts = []*cri.Mount{{ContainerPath: "/host", HostPath: path, SelinuxRelabel: true}}
		if _, err := n.Create(t.Context(), testPod(), c); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got := labelOf(t, "/etc"); got == testLabel {
		t.Errorf("/etc: %q", got)
	}
}

func TestSuperPrivilegedContainersTakeNoVolumesFromOthers(t *testing.T) {
	testutil.Root(t)
	volume := labelled(t)
	n, c := confined(t)
	c.Linux.SecurityContext.SelinuxOptions.Type = "spc_t"
	c.Mounts = []*cri.Mount{{ContainerPath: "/volume", HostPath: volume, SelinuxRelabel: true}}
	n.create(c)
	if got := labelOf(t, volume); got != "" {
		t.Errorf("%q", got)
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
