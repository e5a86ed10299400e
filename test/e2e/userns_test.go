package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

// Where the users of the pods' namespaces are on the host.
const (
	firstUser = 200000
	users     = 65536
)

func mapping() []*cri.IDMapping {
	return []*cri.IDMapping{{ContainerId: 0, HostId: firstUser, Length: users}}
}

// userNS gives the pod a user namespace of its own.
func userNS(c *cri.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: mapping(), Gids: mapping()}
}

func owner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func TestRootOfAUserNamespaceIsNobodyOutside(t *testing.T) {
	for name, network := range map[string]func(*cri.PodSandboxConfig){"own network": own, "host's network": func(*cri.PodSandboxConfig) {}} {
		t.Run(name, func(t *testing.T) {
			p := runPod(t, network, userNS)
			c := p.start(sleeper())
			if out := c.sh("id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /bin/busybox /root /proc/1 /dev/shm"); out != "0\n 0 200000 65536\n0:0\n0:0\n0:0\n0:0" {
				t.Errorf("inside: %q", out)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid()))
			if err != nil || !strings.Contains(string(status), "Uid:\t200000\t200000") {
				t.Errorf("outside: %s, %v", status, err)
			}
			if c.joined("user") == namespace(t, "user") || c.joined("user") != p.start(sleeper()).joined("user") {
				t.Error("the user namespace is not the pod's")
			}
			if o := p.status().Linux.Namespaces.Options.UsernsOptions; o.GetMode() != cri.NamespaceMode_POD || len(o.GetUids()) != 1 {
				t.Errorf("status has %v", o)
			}
			if out := c.sh("touch /etc/x /root/y && stat -c %u:%g /etc/x; chown 1000:1000 /etc/x && stat -c %u:%g /etc/x; echo shm > /dev/shm/z; cat /dev/shm/z"); out != "0:0\n1000:1000\nshm" {
				t.Errorf("writing: %q", out)
			}
		})
	}
}

func TestVolumesAreIDMapped(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "roots"), "x")
	write(t, filepath.Join(dir, "users"), "x")
	if err := os.Chown(filepath.Join(dir, "users"), 1000, 1001); err != nil {
		t.Fatal(err)
	}
	p := runPod(t, own, userNS)
	config := sh("stat -c %u:%g /mapped/roots /mapped/users /plain/roots; touch /mapped/new; chown 7:8 /mapped/new; touch /plain/new 2>&1")
	config.Mounts = []*cri.Mount{
		{HostPath: dir, ContainerPath: "/mapped", UidMappings: mapping(), GidMappings: mapping()},
		{HostPath: dir, ContainerPath: "/plain"},
	}
	c := p.start(config)
	if out := c.output(); !strings.HasPrefix(out, "0:0\n1000:1001\n65534:65534") || !strings.Contains(out, "denied") {
		t.Errorf("inside: %q", out)
	}
	if got := owner(t, filepath.Join(dir, "new")); got != "7:8" {
		t.Errorf("a new file belongs to %s on the host", got)
	}
	if got := c.status().Mounts[0]; len(got.UidMappings) != 1 {
		t.Errorf("status has %v", got)
	}
}

func TestImageVolumesBelongToTheNamespacesRoot(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Config.Volumes = map[string]struct{}{"/data": {}, "/empty": {}}
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "data/", Mode: 0o755}, {Name: "data/file", UID: 5, GID: 6}}})
	})
	config := sh("stat -c %u:%g /data /data/file /empty; touch /data/x /empty/y && echo written")
	config.Image.Image = name
	if out := runPod(t, own, userNS).start(config).output(); out != "0:0\n5:6\n0:0\nwritten" {
		t.Errorf("got %q", out)
	}
}

func TestNamespacesOfUsersThatCannotBeAreRefused(t *testing.T) {
	for name, u := range map[string]*cri.UserNamespace{
		"no mappings":    {Mode: cri.NamespaceMode_POD},
		"no groups":      {Mode: cri.NamespaceMode_POD, Uids: mapping()},
		"empty mapping":  {Mode: cri.NamespaceMode_POD, Uids: []*cri.IDMapping{{HostId: 1000}}, Gids: mapping()},
		"too long":       {Mode: cri.NamespaceMode_POD, Uids: []*cri.IDMapping{{HostId: 1 << 31, Length: 1<<32 - 1}}, Gids: mapping()},
		"host with maps": {Mode: cri.NamespaceMode_NODE, Uids: mapping(), Gids: mapping()},
		"another mode":   {Mode: cri.NamespaceMode_CONTAINER, Uids: mapping(), Gids: mapping()},
	} {
		config := podConfig(t)
		config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := runPod(t, userNS, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := sh("true")
	security(config).Privileged = true
	if err := p.createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("privileged: %v", err)
	}
}

func TestProcessesOfAUserNamespaceAreInThePodsCgroup(t *testing.T) {
	p := runPod(t, own, userNS, pidMode(cri.NamespaceMode_POD))
	c := p.start(sleeper())
	for _, controller := range []string{"memory", "cpu", "devices", "pids"} {
		if got := c.cgroup(controller); !strings.HasSuffix(got, p.home()+"/"+c.group()) {
			t.Errorf("%s: %s", controller, got)
		}
	}
	if out := c.sh("cat /proc/1/comm; grep -c . /proc/1/cgroup"); !strings.Contains(out, "\n") {
		t.Errorf("process 1: %q", out)
	}
}
