package spec_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/spec"
)

// facts are of a host that has everything but CAP_SYS_RESOURCE.
func facts() host.Facts {
	caps := slices.DeleteFunc(host.KnownCapabilities(), func(c string) bool { return c == "CAP_SYS_RESOURCE" })
	return host.Facts{
		Kernel: host.Kernel{Major: 6, Minor: 18}, Hostname: "node",
		CgroupRoot: "/sys/fs/cgroup", CgroupV2: true,
		Controllers: []string{"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}, Swap: true, HugepageSizes: []string{"1GB", "2MB"},
		Overlay: true, RecursiveReadOnly: true, IDMapMounts: true, OverlayIDMap: true, UserNamespaces: true,
		Seccomp: true, Capabilities: caps, OOMScoreAdjMin: 0,
	}
}

// fakeSystem is a host with a few devices and mounts.
type fakeSystem struct{}

func (fakeSystem) Devices(path string) ([]specs.LinuxDevice, error) {
	nodes := []specs.LinuxDevice{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
		{Path: "/dev/dri/card0", Type: "c", Major: 226, Minor: 0},
		{Path: "/dev/dri/renderD128", Type: "c", Major: 226, Minor: 128},
	}
	switch path {
	case "/dev":
		return nodes, nil
	case "/dev/fuse":
		return nodes[:1], nil
	case "/dev/dri/card0":
		return nodes[1:2], nil
	case "/dev/dri":
		return nodes[1:], nil
	}
	return nil, errs.NotFound
}

func (fakeSystem) Propagation(path string) (host.Propagation, error) {
	switch path {
	case "/shared":
		return host.Propagation{MountPoint: "/shared", Shared: true}, nil
	case "/slave":
		return host.Propagation{MountPoint: "/slave", Slave: true}, nil
	}
	return host.Propagation{MountPoint: "/"}, nil
}

func (fakeSystem) ReadFile(path string, limit int64) ([]byte, error) {
	switch path {
	case "/profiles/log.json":
		return []byte(`{"defaultAction":"SCMP_ACT_LOG"}`), nil
	case "/profiles/broken.json":
		return []byte(`{`), nil
	}
	if profile, ok := strings.CutPrefix(path, "/profiles/inline/"); ok {
		return []byte(profile), nil
	}
	return nil, fs.ErrNotExist
}

// input is the smallest that works.
func input() spec.Input {
	return spec.Input{
		ID: "c1", PodID: "p1",
		Pod:       &cri.PodSandboxConfig{Hostname: "pod", Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod1"}},
		Container: &cri.ContainerConfig{Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{}}},
		Image:     ispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"arg"}},
		RootFS:    "/run/berth/rootfs/c1",
		Shm:       "/run/berth/pods/p1/shm", ResolvConf: "/run/berth/pods/p1/resolv.conf",
		Hosts: "/run/berth/pods/p1/hosts", Hostname: "/run/berth/pods/p1/hostname",
		UTSName: "pod", Host: facts(), System: fakeSystem{},
	}
}

// security returns the security context of in's container.
func security(in spec.Input) *cri.LinuxContainerSecurityContext {
	return in.Container.Linux.SecurityContext
}

func build(t *testing.T, in spec.Input) *specs.Spec {
	t.Helper()
	s, err := spec.Container(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused checks that in is refused for the given kind of reason.
func refused(t *testing.T, in spec.Input, kind errs.Kind) {
	t.Helper()
	if _, err := spec.Container(in); !errors.Is(err, kind) {
		t.Errorf("got %v, want kind %q", err, kind)
	}
}

func mountAt(t *testing.T, s *specs.Spec, destination string) specs.Mount {
	t.Helper()
	var found []specs.Mount
	for _, m := range s.Mounts {
		if m.Destination == destination {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d mounts at %s", len(found), destination)
	}
	return found[0]
}
