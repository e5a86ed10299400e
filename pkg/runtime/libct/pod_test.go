package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

func podOf(t testing.TB, id string, types ...specs.LinuxNamespaceType) runtime.PodRequest {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := runtime.PodRequest{ID: id, CgroupParent: parent + "/" + id}
	for _, kind := range types {
		r.Namespaces = append(r.Namespaces, runtime.PodNamespace{Type: kind, Path: filepath.Join(dir, string(kind))})
	}
	return r
}

func createPod(t testing.TB, e *Engine, r runtime.PodRequest) int {
	t.Helper()
	pid, err := e.CreatePod(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := e.DeletePod(context.Background(), r, pid); err != nil {
				t.Error(err)
			}
		}
		for _, ns := range r.Namespaces {
			if _, err := os.Lstat(ns.Path); err == nil {
				t.Errorf("%s is left", ns.Path)
			}
		}
	})
	return pid
}

// join lets the spec's container share the pod's namespaces.
func join(spec *specs.Spec, r runtime.PodRequest) *specs.Spec {
	for _, ns := range r.Namespaces {
		found := false
		for i := range spec.Linux.Namespaces {
			if spec.Linux.Namespaces[i].Type == ns.Type {
				spec.Linux.Namespaces[i].Path, found = ns.Path, true
			}
		}
		if !found {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: ns.Type, Path: ns.Path})
		}
	}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = r.UIDMappings, r.GIDMappings
	spec.Linux.CgroupsPath = r.CgroupParent + "/" + filepath.Base(spec.Linux.CgroupsPath)
	spec.Hostname = ""
	return spec
}

func TestContainersShareThePodsNamespaces(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "p1", specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	r.Hostname = "pod-1"
	r.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "123", "kernel.shmmni": "77"}
	if pid := createPod(t, e, r); pid != 0 {
		t.Errorf("PID 1 for nothing: %d", pid)
	}
	a := create(t, e, "p1a", join(baseSpec(t, "a", "/bin/sleep", "1000"), r)).start()
	b := create(t, e, "p1b", join(baseSpec(t, "b", "/bin/sleep", "1000"), r)).start()
	script := "for n in net ipc uts; do readlink /proc/self/ns/$n; done; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni"
	got := a.sh(script)
	expect(t, "second container", b.sh(script), got)
	if !strings.HasSuffix(got, "pod-1\n123\n77") {
		t.Errorf("got %q", got)
	}
	for _, ns := range r.Namespaces {
		pinned, err := os.Stat(ns.Path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, fmt.Sprintf("[%d]", pinned.Sys().(*syscall.Stat_t).Ino)) {
			t.Errorf("%s is not pinned", ns.Type)
		}
	}
}

func TestPodPIDNamespaceHasASmallInit(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "p2", specs.PIDNamespace, specs.IPCNamespace)
	r.InitCgroup = r.CgroupParent + "/init"
	pid := createPod(t, e, r)
	if pid == 0 {
		t.Fatal("no PID 1")
	}
	a := create(t, e, "p2a", join(baseSpec(t, "a", "/bin/sleep", "1000"), r)).start()
	b := create(t, e, "p2b", join(baseSpec(t, "b", "/bin/sleep", "1000"), r)).start()
	expect(t, "PID 1", a.sh("cat /proc/1/comm; grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/1/status | cut -f2"), "berth-pod\n65534\n0000000000000000\n0000000000000000\n1")
	if out, code, err := a.run(a.process("/bin/ls", "/proc/1/root/")); err != nil || code == 0 {
		t.Errorf("root of PID 1: exit %d, %v: %s", code, err, out)
	}
	// The first container's orphans go to PID 1, which reaps them.
	_ = a.sh("setsid sh -c 'sleep 0.05 & exec sleep 0.1' >/dev/null 2>&1 & ")
	for i := 0; ; i++ {
		if b.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l") == "0" {
			break
		}
		if i > 200 {
			t.Fatal("zombies stay")
		}
	}
	if group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil || !strings.Contains(string(group), r.InitCgroup) {
		t.Errorf("PID 1's cgroup: %v: %s", err, group)
	}
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(smaps)) {
		var kB int
		if _, err := fmt.Sscanf(line, "Pss_Anon: %d kB", &kB); err == nil && kB > 128 {
			t.Errorf("PID 1 holds %d kB", kB)
		}
	}
}

func TestPodUserNamespace(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "p3", specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	r.Hostname = "mapped"
	r.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	r.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	r.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "55"}
	createPod(t, e, r)
	spec := join(baseSpec(t, "a", "/bin/sleep", "1000"), r)
	volume := t.TempDir()
	if err := errors.Join(os.Chown(spec.Root.Path, 100000, 200000), os.Chmod(volume, 0o700)); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume, Options: []string{"rbind"}, UIDMappings: r.UIDMappings, GIDMappings: r.GIDMappings})
	b := create(t, e, "p3a", spec).start()
	expect(t, "map", b.sh("tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map"), "0 100000 65536\n 0 200000 65536")
	expect(t, "root", b.sh("id -u; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; [ $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) ] && echo same"), "0\nmapped\n55\nsame")
	expect(t, "volume", b.sh("touch /data/f && stat -c %u:%g /data/f /data"), "0:0\n0:0")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(volume, "f"), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("on the host: %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := unix.Stat(fmt.Sprintf("/proc/%d", b.p.PID), &st); err != nil {
		t.Error(err)
	}
	p := b.process("/bin/sh", "-c", "id -u; id -g; id -G; grep CapEff /proc/self/status | cut -f2; exec ls /proc/self/fd")
	p.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}
	out, code, err := b.run(p)
	if err != nil || code != 0 || !strings.HasPrefix(out, "1000\n1000\n1000 7\n") || !strings.HasSuffix(out, "\n0\n1\n2\n3\n") {
		t.Errorf("exit %d, %v: %q", code, err, out)
	}
}

func TestCreatePodRefusesWhatWouldChangeTheHost(t *testing.T) {
	e := newEngine(t)
	for key, kinds := range map[string][]specs.LinuxNamespaceType{
		"kernel.core_pattern":                 {specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace},
		"net.ipv4.ip_unprivileged_port_start": {specs.IPCNamespace},
		"net...kernel.core_pattern":           {specs.NetworkNamespace},
		"net.//.//.kernel.core_pattern":       {specs.NetworkNamespace},
		"kernel.shmmni":                       {specs.NetworkNamespace},
		"vm.swappiness":                       {specs.IPCNamespace},
	} {
		r := podOf(t, "p4", kinds...)
		r.Sysctls = map[string]string{key: "1"}
		if _, err := e.CreatePod(t.Context(), r); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", key, err)
		}
	}
	r := podOf(t, "p4", specs.NetworkNamespace)
	r.Sysctls = map[string]string{"net.no.such": "1"}
	if _, err := e.CreatePod(t.Context(), r); err == nil || !strings.Contains(err.Error(), "net/no/such") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(r.Namespaces[0].Path); err == nil {
		t.Error("a pin is left")
	}
}

func TestCreatePodTakesOverWhatIsLeft(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "p5", specs.NetworkNamespace, specs.UTSNamespace)
	createPod(t, e, r)
	createPod(t, e, r)
}

func BenchmarkPod(b *testing.B) {
	e := newEngine(b)
	testutil.Root(b)
	r := podOf(b, "bench", specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	r.CgroupParent = ""
	for b.Loop() {
		pid, err := e.CreatePod(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		if err := e.DeletePod(b.Context(), r, pid); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDeletePodEndsWhatIsLeftInItsOwnCgroup(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "p6", specs.NetworkNamespace)
	r.CgroupParent = parent + "/p6"
	createPod(t, e, r)
	spec := baseSpec(t, "p6c", "/bin/bash", "-c", "sleep 1000 & disown; exec true")
	spec.Linux.CgroupsPath = parent + "/p6/p6c"
	spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	b := create(t, e, "p6c", spec).start()
	b.waited = true
	wait(t, b.p)
	if err := e.DeletePod(t.Context(), r, 0); err != nil {
		t.Error(err)
	}
}
