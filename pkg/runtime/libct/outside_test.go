package libct

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/runtime"
)

// mountedSpec has mounts of every kind that can be placed from outside, beside
// those that cannot.
func mountedSpec(t *testing.T, id, script string) *specs.Spec {
	t.Helper()
	spec := baseSpec(t, id, "/bin/bash", "-c", script)
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, d := range []string{"tree", "tree/sub", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rootfs := spec.Root.Path
	if err := os.WriteFile(filepath.Join(rootfs, "etc/hosts"), []byte("image's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"etc/linked": "hosts-of-another-name", "etc/linked-dir": "/elsewhere"} {
		if err := os.Symlink(target, filepath.Join(rootfs, link)); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(source, destination string, options ...string) specs.Mount {
		return specs.Mount{Type: "bind", Source: source, Destination: destination, Options: append([]string{"rbind", "rprivate"}, options...)}
	}
	spec.Mounts = append(spec.Mounts,
		bind(file("plain"), "/etc/hosts"),
		bind(file("new"), "/etc/new", "ro"),
		bind(file("linked"), "/etc/linked", "rw"),
		bind(file("deep"), "/not/there/yet", "ro"),
		bind(filepath.Join(dir, "tree"), "/data", "ro", "nosuid"),
		bind(filepath.Join(dir, "other"), "/data/sub", "rw", "nodev"),
		bind(filepath.Join(dir, "other"), "/tmp", "noexec", "nosuid", "nodev"),
		bind(filepath.Join(dir, "other"), "/etc/linked-dir", "rw"),
		bind(filepath.Join(dir, "other"), "/dev/shm", "rw", "nosuid", "noexec", "nodev"),
		bind(file("message"), "/dev/termination-log", "rw"),
		bind(file("shared"), "/etc/shared", "rslave"),
		specs.Mount{Type: "cgroup", Source: "cgroup", Destination: "/sys/fs/cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	)
	for i, n := range spec.Linux.Namespaces {
		if n.Type == specs.CgroupNamespace {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces[:i], spec.Linux.Namespaces[i+1:]...)
			break
		}
	}
	mode, owner := os.FileMode(0o640), uint32(12)
	spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{Path: "/dev/extra", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &owner, GID: &owner})
	return spec
}

const tellMounts = `
	cut -d" " -f4- /proc/self/mountinfo | sed 's/ master:[0-9]*/ master/' | sort
	find /dev /sys/fs/cgroup -maxdepth 1 -printf "%p %M %U:%G %l\n" | sort
	stat -c "%n %t:%T" /dev/null /dev/extra
	for f in /etc/hosts /etc/new /etc/linked /etc/hosts-of-another-name /not/there/yet /dev/termination-log /etc/shared; do echo "$f: $(<$f)"; done
	touch /data/x 2>&1; touch /data/sub/y && ls /tmp /dev/shm`

func TestWhatIsPlacedFromOutsideIsAsFromInside(t *testing.T) {
	spec := mountedSpec(t, "o1", tellMounts)
	var got [2]string
	for i, inside := range []bool{false, true} {
		e := newEngine(t)
		e.inside = inside
		b := create(t, e, "o1", spec)
		out, code := b.output()
		if code != 0 {
			t.Fatalf("exit %d: %s", code, out)
		}
		got[i] = out
		if err := e.Destroy(t.Context(), "o1"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(spec.Mounts[len(spec.Mounts)-7].Source, "y")); err != nil {
			t.Fatal(err)
		}
	}
	// libcontainer leaves the tmpfs itself writable.
	const tmpfs = "/ /sys/fs/cgroup ro,"
	if !strings.Contains(got[0], tmpfs) {
		t.Errorf("no %q in %s", tmpfs, got[0])
	}
	got[1] = strings.Replace(got[1], "/ /sys/fs/cgroup rw,", tmpfs, 1)
	if diff := cmp.Diff(strings.Split(got[1], "\n"), strings.Split(got[0], "\n")); diff != "" {
		t.Errorf("inside (-), outside (+):\n%s", diff)
	}
}

func TestWhatIsPrivilegedMayWriteItsCgroups(t *testing.T) {
	spec := mountedSpec(t, "o2", `for d in /sys/fs/cgroup/*; do [ -L "$d" ] || mkdir "$d/mine" && rmdir "$d/mine" || echo "$d"; done`)
	spec.Mounts[len(spec.Mounts)-1].Options = []string{"nosuid", "noexec", "nodev", "relatime", "rw"}
	if out, code := create(t, newEngine(t), "o2", spec).output(); code != 0 || out != "" {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestAnImagesLinksKeepDevicesInside(t *testing.T) {
	spec := baseSpec(t, "o3", "/bin/bash", "-c", "stat -c %F /dev/null")
	elsewhere := t.TempDir()
	dev := filepath.Join(spec.Root.Path, "dev")
	if err := os.Remove(dev); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, dev); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t)
	if p, err := e.Create(t.Context(), "o3", spec, runtime.ProcessIO{}); err == nil { // libcontainer follows it within the root
		_ = e.Destroy(t.Context(), "o3")
		wait(t, p)
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}
