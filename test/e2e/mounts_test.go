package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mountTmpfs mounts a file system that the test's end unmounts.
func mountTmpfs(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("e2e", path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

func TestHostPathsAreMounted(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "content\n")
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	p := runPod(t)
	config := sh("cat /a/file /b/file /f /deep/er/file; echo new > /a/made; touch /b/x; ls -d /missing; echo $?; test -e /made-up && echo dir")
	missing := filepath.Join(dir, "not", "there")
	config.Mounts = []*cri.Mount{
		{HostPath: dir, ContainerPath: "/a"},
		{HostPath: dir, ContainerPath: "/b", Readonly: true},
		{HostPath: filepath.Join(dir, "file"), ContainerPath: "/f"},
		{HostPath: filepath.Join(dir, "link"), ContainerPath: "/deep/er"},
		{HostPath: missing, ContainerPath: "/missing"},
	}
	c := p.start(config)
	out := c.output()
	if strings.Count(out, "content") != 4 || !strings.Contains(out, "/b/x: Read-only file system") || !strings.Contains(out, "/missing\n0") {
		t.Errorf("got %q", out)
	}
	if made, err := os.ReadFile(filepath.Join(dir, "made")); err != nil || string(made) != "new\n" {
		t.Errorf("written through the mount: %q, %v", made, err)
	}
	if info, err := os.Stat(missing); err != nil || !info.IsDir() || info.Mode().Perm() != 0o755 {
		t.Errorf("missing host path: %v, %v", info, err)
	}
	if got := c.status().Mounts; len(got) != len(config.Mounts) || got[1].ContainerPath != "/b" || !got[1].Readonly {
		t.Errorf("status has %v", got)
	}
}

func TestMountsThatMakeNoSenseAreRefused(t *testing.T) {
	p := runPod(t)
	dir := t.TempDir()
	mountTmpfs(t, filepath.Join(dir, "private"))
	if err := unix.Mount("", filepath.Join(dir, "private"), "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*cri.Mount{
		"relative host path":       {HostPath: "etc", ContainerPath: "/a"},
		"no host path":             {ContainerPath: "/a"},
		"the root":                 {HostPath: dir, ContainerPath: "/"},
		"rro without read-only":    {HostPath: dir, ContainerPath: "/a", RecursiveReadOnly: true},
		"rro with propagation":     {HostPath: dir, ContainerPath: "/a", Readonly: true, RecursiveReadOnly: true, Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		"rslave of a private one":  {HostPath: filepath.Join(dir, "private"), ContainerPath: "/a", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		"rshared of a private one": {HostPath: filepath.Join(dir, "private"), ContainerPath: "/a", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		"unknown propagation":      {HostPath: dir, ContainerPath: "/a", Propagation: 9},
	} {
		config := sh("true")
		config.Mounts = []*cri.Mount{m}
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	config := sh("true")
	config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/a", MountOptions: []string{"suid"}}}
	if err := p.createError(config); err == nil {
		t.Error("an option that is not CRI's is accepted")
	}
}

func TestMountsPropagateAsAsked(t *testing.T) {
	dir := t.TempDir()
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := sleeper()
	security(config).Privileged = true
	for path, propagation := range map[string]cri.MountPropagation{
		"/private": cri.MountPropagation_PROPAGATION_PRIVATE, "/slave": cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "/shared": cri.MountPropagation_PROPAGATION_BIDIRECTIONAL,
	} {
		config.Mounts = append(config.Mounts, &cri.Mount{HostPath: dir, ContainerPath: path, Propagation: propagation})
	}
	c := p.start(config)
	mountTmpfs(t, filepath.Join(dir, "later"))
	write(t, filepath.Join(dir, "later", "file"), "x")
	if out := c.sh("ls /private/later /slave/later /shared/later"); out != "/private/later:\n\n/shared/later:\nfile\n\n/slave/later:\nfile" {
		t.Errorf("mounts of the host appear as %q", out)
	}
	c.sh("mkdir /slave/s /shared/b; mount -t tmpfs in /slave/s; mount -t tmpfs in /shared/b; touch /slave/s/x /shared/b/x")
	for path, want := range map[string]bool{"s/x": false, "b/x": true} {
		if _, err := os.Stat(filepath.Join(dir, path)); (err == nil) != want {
			t.Errorf("%s on the host: %v", path, err)
		}
	}
	if err := unix.Unmount(filepath.Join(dir, "b"), unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyCanBeRecursive(t *testing.T) {
	dir := t.TempDir()
	mountTmpfs(t, filepath.Join(dir, "sub"))
	p := runPod(t)
	config := sh("touch /ro/sub/plain && echo plain; touch /rro/sub/recursive && echo recursive; touch /rro/x; true")
	config.Mounts = []*cri.Mount{
		{HostPath: dir, ContainerPath: "/ro", Readonly: true},
		{HostPath: dir, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true},
	}
	c := p.start(config)
	if out := c.output(); !strings.Contains(out, "plain") || strings.Contains(out, "\nrecursive") || strings.Count(out, "Read-only file system") != 2 {
		t.Errorf("got %q", out)
	}
	if got := c.status().Mounts[1]; !got.RecursiveReadOnly {
		t.Errorf("status has %v", got)
	}
}

func TestMountOptionsHold(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "program"), "#!/bin/sh\necho ran\n")
	if err := os.Chmod(filepath.Join(dir, "program"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := runPod(t)
	config := sh("/yes/program; /no/program; grep ' /no ' /proc/mounts")
	config.Mounts = []*cri.Mount{
		{HostPath: dir, ContainerPath: "/yes"},
		{HostPath: dir, ContainerPath: "/no", MountOptions: []string{"noexec", "nodev", "nosuid"}},
	}
	out := p.start(config).output()
	if strings.Count(out, "ran") != 1 || !strings.Contains(out, "denied") {
		t.Errorf("got %q", out)
	}
	for _, option := range []string{"noexec", "nodev", "nosuid"} {
		if !strings.Contains(out, option) {
			t.Errorf("no %s in %q", option, out)
		}
	}
}

func TestImageVolumesStartWithTheImagesContent(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Config.Volumes = map[string]struct{}{"/var/data": {}, "/not/there": {}, "covered/": {}, "/../../etc/vol": {}}
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{
			{Name: "var/data/", Mode: 0o2750, UID: 7, GID: 8},
			{Name: "var/data/sub/", Mode: 0o755},
			{Name: "var/data/sub/file", Data: []byte("from the image\n"), Mode: 0o640, UID: 9, GID: 10},
			{Name: "var/data/link", Link: "sub/file", Type: images.Symlink},
			{Name: "covered/", Mode: 0o755},
			{Name: "covered/file", Data: []byte("hidden")},
			{Name: "etc/vol/", Mode: 0o755},
			{Name: "etc/vol/file", Data: []byte("inside\n")},
		}})
	})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host"), "x")
	p := runPod(t)
	config := sh("stat -c '%u:%g %a' /var/data /var/data/sub/file; cat /var/data/link /etc/vol/file; ls /covered; touch /not/there/x /var/data/mine && ls /var/data; grep -c ' /not/there ' /proc/mounts")
	config.Image.Image = name
	security(config).ReadonlyRootfs = true
	config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/covered"}}
	want := "7:8 2750\n9:10 640\nfrom the image\ninside\nhost\nlink\nmine\nsub\n1"
	for range 2 { // what the first wrote is not in the second's
		config.Metadata.Attempt++
		config.LogPath = fmt.Sprintf("volumes%d.log", config.Metadata.Attempt)
		if out := p.start(config).output(); out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
	config = sh("true")
	config.Image.Image = variant(t, func(i *images.Image) { i.Config.Volumes = map[string]struct{}{"/": {}} })
	if err := p.createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("volume over everything: %v", err)
	}
}

func TestAnImagesVolumesStayOutOfTheKernelsFileSystems(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Config.Volumes = map[string]struct{}{"/sys/fs/cgroup": {}, "/proc/tty": {}, "/dev": {}}
	})
	p := runPod(t)
	config := sh("grep -c ' /proc/tty ' /proc/mounts; grep ' /dev ' /proc/mounts | cut -d' ' -f3; ls /sys/fs/cgroup/file 2>&1")
	config.Image.Image = name
	if out := p.start(config).output(); !strings.HasPrefix(out, "0\ntmpfs\n") || !strings.Contains(out, "No such file") {
		t.Errorf("got %q", out)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "the pod's\n")
	config = sh("cat /sys/fs/cgroup/file")
	config.Image.Image = name
	config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/sys/fs/cgroup"}}
	if out := p.start(config).output(); out != "the pod's" {
		t.Errorf("mounted by the pod: %q", out)
	}
}

func TestAnImagesLinksDoNotLeadMountsOut(t *testing.T) {
	outside := t.TempDir()
	name := variant(t, func(i *images.Image) {
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{
			{Name: "escape", Link: "../../../../../.." + outside, Type: images.Symlink},
			{Name: "etc/hosts", Link: outside + "/hosts", Type: images.Symlink},
		}})
	})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "mounted")
	p := runPod(t, own)
	config := sh("cat /escape/sub/file")
	config.Image.Image = name
	config.Mounts = []*cri.Mount{{HostPath: dir, ContainerPath: "/escape/sub"}}
	if out := p.start(config).output(); out != "mounted" {
		t.Errorf("got %q", out)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}

func TestRootFileSystemsAreNotShared(t *testing.T) {
	p := runPod(t)
	a, b := p.start(sleeper()), p.start(sleeper())
	a.sh("echo mine > /etc/passwd; rm /bin/cat; mkdir /new")
	if out := b.sh("cat /etc/passwd; ls -d /new 2>&1; true"); strings.Contains(out, "mine") || !strings.Contains(out, "No such file") {
		t.Errorf("the other container sees %q", out)
	}
}
