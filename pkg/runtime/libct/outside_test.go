package libct

import (
	"os"
	"path/filepath"
	"slices"
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
	spec.Mounts = append(spec.Mounts, specs.Mount{Type: "mqueue", Source: "mqueue", Destination: "/dev/mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
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
	for name, namespaces := range map[string][]specs.LinuxNamespace{
		"the host's cgroups": nil,
		"its own cgroups":    {{Type: specs.CgroupNamespace}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := mountedSpec(t, "o1", tellMounts)
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, namespaces...)
			inside, outside := tell(t, true, spec), tell(t, false, spec)
			// libcontainer leaves the tmpfs itself writable.
			if len(namespaces) == 0 {
				const tmpfs = "/ /sys/fs/cgroup ro,"
				if !strings.Contains(outside, tmpfs) {
					t.Errorf("no %q in %s", tmpfs, outside)
				}
				inside = strings.Replace(inside, "/ /sys/fs/cgroup rw,", tmpfs, 1)
			}
			if diff := cmp.Diff(strings.Split(inside, "\n"), strings.Split(outside, "\n")); diff != "" {
				t.Errorf("inside (-), outside (+):\n%s", diff)
			}
		})
	}
}

// tell runs a container whose mounts are all made inside or, where they can be,
// outside.
func tell(t *testing.T, inside bool, spec *specs.Spec) string {
	t.Helper()
	e := newEngine(t)
	e.inside = inside
	out, code := create(t, e, "o1", spec).output()
	if code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if err := e.Destroy(t.Context(), "o1"); err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Mounts {
		if m.Destination == "/data/sub" {
			if err := os.Remove(filepath.Join(m.Source, "y")); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestWhatIsPrivilegedMayWriteItsCgroups(t *testing.T) {
	spec := mountedSpec(t, "o2", `for d in /sys/fs/cgroup/*; do [ -L "$d" ] || mkdir "$d/mine" && rmdir "$d/mine" || echo "$d"; done`)
	spec.Mounts[slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })].Options = []string{"nosuid", "noexec", "nodev", "relatime", "rw"}
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
