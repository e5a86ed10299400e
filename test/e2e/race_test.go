package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// swap exchanges two names without a pause until the test ends, as a container
// can do in a volume that it shares with the one that is being made.
func swap(t *testing.T, one, other string) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error("swap: ", err)
		}
	})
}

// try makes and starts a container, where it can be.
func (p *pod) try(c *cri.ContainerConfig) (*ctr, error) {
	p.t.Helper()
	inherit(c, p.config)
	r, err := berth.Runtime.CreateContainer(p.t.Context(), p.request(c))
	if err != nil {
		return nil, err
	}
	_, err = berth.Runtime.StartContainer(p.t.Context(), &cri.StartContainerRequest{ContainerId: r.ContainerId})
	return &ctr{p.t, p, r.ContainerId}, err
}

// The targets lie in a volume, in which a directory becomes a link out of the
// root file system and a directory again (CVE-2021-30465).
func TestMountTargetsThatARacerSwapsStayInside(t *testing.T) {
	outside, volume, source := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(source, "file"), "mounted\n")
	link := filepath.Join(volume, "link")
	if err := os.Mkdir(filepath.Join(volume, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../.."+outside, link); err != nil {
		t.Fatal(err)
	}
	swap(t, filepath.Join(volume, "dir"), link)
	p := runPod(t)
	made := 0
	for range 60 {
		config := sh("cat /data/dir/file")
		config.Mounts = []*cri.Mount{
			{HostPath: volume, ContainerPath: "/data"},
			{HostPath: source, ContainerPath: "/data/dir/made"},
			{HostPath: filepath.Join(source, "file"), ContainerPath: "/data/dir/file"},
		}
		security(config).MaskedPaths = []string{"/data/dir/made/file"}
		security(config).ReadonlyPaths = []string{"/data/dir/made"}
		if k, err := p.try(config); err == nil {
			made++
			k.await()
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("made outside: %v, %v", left, err)
		}
	}
	if t.Logf("%d of 60 containers ran", made); made == 0 {
		t.Error("no container could be made")
	}
}

// With /dev from a volume, what covers masked paths and what becomes the console
// are the volume's to swap (CVE-2025-31133, CVE-2025-52565).
func TestMasksAndConsolesAreNotWhatARacerPutsIntoDev(t *testing.T) {
	outside, dev := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dev, name) }
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		if err := unix.Mknod(at(name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(at("pts"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("devpts", at("pts"), "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at("pts"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink("/proc/sys/kernel/core_pattern", at("not-null")); err != nil {
		t.Fatal(err)
	}
	write(t, at("console"), "")
	if err := os.Symlink("../../../../../../../../.."+outside+"/console", at("no-console")); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	swap(t, at("null"), at("not-null"))
	swap(t, at("console"), at("no-console"))
	p := runPod(t)
	ran := map[bool]int{}
	for n := range 80 {
		config := sh("wc -c < /proc/meminfo; echo '|/evil' > /proc/meminfo; ls /proc/sys/vm")
		config.Mounts = []*cri.Mount{{HostPath: dev, ContainerPath: "/dev"}}
		config.Tty = n%2 == 1
		security(config).MaskedPaths = []string{"/proc/meminfo", "/proc/sys/vm"}
		security(config).ReadonlyPaths = []string{"/proc/sys"}
		k, err := p.try(config)
		if err == nil {
			ran[config.Tty]++
			if out := k.output(); !strings.HasPrefix(out, "0") && !strings.Contains(out, "ermission denied") || strings.Contains(out, "swappiness") {
				t.Fatalf("what is masked has %q", out)
			}
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("made outside: %v, %v", left, err)
		}
	}
	if after, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || string(after) != string(before) {
		t.Errorf("core_pattern is %q, %v", after, err)
	}
	if t.Logf("of 80 containers, %d ran without a terminal, %d with one", ran[false], ran[true]); len(ran) == 0 {
		t.Error("no container could be made")
	}
}
