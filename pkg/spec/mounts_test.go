package spec_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

func mounting(m ...*cri.Mount) spec.Input {
	in := input()
	in.Container.Mounts = m
	return in
}

func TestParentsAreMountedFirst(t *testing.T) {
	s := build(t, mounting(
		&cri.Mount{ContainerPath: "/a/b/c", HostPath: "/1"},
		&cri.Mount{ContainerPath: "/a", HostPath: "/2"},
		&cri.Mount{ContainerPath: "a/b/", HostPath: "/3"},
	))
	var order []string
	for _, m := range s.Mounts {
		if slices.Contains([]string{"/1", "/2", "/3"}, m.Source) {
			order = append(order, m.Destination)
		}
	}
	if d := cmp.Diff([]string{"/a", "/a/b", "/a/b/c"}, order); d != "" {
		t.Error(d)
	}
}

func TestConfiguredMountsReplaceCustomaryOnes(t *testing.T) {
	s := build(t, mounting(
		&cri.Mount{ContainerPath: "/etc/resolv.conf", HostPath: "/mine"},
		&cri.Mount{ContainerPath: "/dev", HostPath: "/dev"},
	))
	if m := mountAt(t, s, "/etc/resolv.conf"); m.Source != "/mine" {
		t.Errorf("resolv.conf from %s", m.Source)
	}
	for _, m := range s.Mounts {
		if slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/mqueue"}, m.Destination) {
			t.Errorf("%s covers the host's", m.Destination)
		}
	}
}

func TestPropagationNeedsAHostMountThatGivesIt(t *testing.T) {
	for _, c := range []struct {
		source string
		want   cri.MountPropagation
		root   string // "" where it is refused
	}{
		{"/shared", cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "rslave"},
		{"/slave", cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "rslave"},
		{"/private", cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, ""},
		{"/shared", cri.MountPropagation_PROPAGATION_BIDIRECTIONAL, "rshared"},
		{"/slave", cri.MountPropagation_PROPAGATION_BIDIRECTIONAL, ""},
		{"/private", cri.MountPropagation_PROPAGATION_BIDIRECTIONAL, ""},
		{"/shared", 9, ""},
	} {
		t.Run(fmt.Sprint(c.source, c.want), func(t *testing.T) {
			in := mounting(&cri.Mount{ContainerPath: "/m", HostPath: c.source, Propagation: c.want})
			if c.root == "" {
				refused(t, in, errs.Invalid)
				return
			}
			s := build(t, in)
			if !slices.Contains(mountAt(t, s, "/m").Options, c.root) || s.Linux.RootfsPropagation != c.root {
				t.Errorf("%v, root %s", mountAt(t, s, "/m").Options, s.Linux.RootfsPropagation)
			}
		})
	}
}

func TestSharedPropagationIsNotNarrowedByALaterSlave(t *testing.T) {
	s := build(t, mounting(
		&cri.Mount{ContainerPath: "/a", HostPath: "/shared", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		&cri.Mount{ContainerPath: "/b", HostPath: "/slave", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
	))
	if s.Linux.RootfsPropagation != "rshared" {
		t.Error(s.Linux.RootfsPropagation)
	}
}

func TestRecursiveReadOnly(t *testing.T) {
	ok := &cri.Mount{ContainerPath: "/m", HostPath: "/h", Readonly: true, RecursiveReadOnly: true}
	if m := mountAt(t, build(t, mounting(ok)), "/m"); !slices.Contains(m.Options, "rro") {
		t.Error(m.Options)
	}
	refused(t, mounting(&cri.Mount{ContainerPath: "/m", HostPath: "/h", RecursiveReadOnly: true}), errs.Invalid)
	refused(t, mounting(&cri.Mount{
		ContainerPath: "/m", HostPath: "/shared", Readonly: true, RecursiveReadOnly: true,
		Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	}), errs.Invalid)
	in := mounting(ok)
	in.Host.RecursiveReadOnly = false
	if _, err := spec.Container(in); !errors.Is(err, crierrors.ErrRROUnsupported) || !errors.Is(err, errs.Unsupported) {
		t.Errorf("without kernel support: %v", err)
	}
}

func TestImagesAreMountedReadOnly(t *testing.T) {
	x := &cri.ImageSpec{Image: "x"}
	in := mounting(
		&cri.Mount{ContainerPath: "/h", HostPath: "/h"},
		&cri.Mount{ContainerPath: "/m", Image: x, UidMappings: []*cri.IDMapping{{Length: 1}}, MountOptions: []string{"noexec"}},
		&cri.Mount{ContainerPath: "/n", Image: x, ImageSubPath: "sub"},
	)
	in.ImageMounts = map[int]string{1: "/run/v/0", 2: "/run/v/1"}
	s := build(t, in)
	want := []specs.Mount{
		{Destination: "/m", Type: "bind", Source: "/run/v/0", Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"}},
		{Destination: "/n", Type: "bind", Source: "/run/v/1", Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"}},
	}
	if diff := cmp.Diff(want, []specs.Mount{mountAt(t, s, "/m"), mountAt(t, s, "/n")}); diff != "" {
		t.Error(diff)
	}
	if missing := spec.MissingHostPaths(in.Container); !slices.Equal(missing, []string{"/h"}) {
		t.Errorf("host paths %v", missing)
	}
	in.Container.Mounts[1].HostPath = "/h"
	refused(t, in, errs.Invalid)
	in.Container.Mounts[1].HostPath, in.Container.Mounts[1].ContainerPath = "", "/"
	refused(t, in, errs.Invalid)
}

func TestMountsThatAreRefused(t *testing.T) {
	one := []*cri.IDMapping{{Length: 1}}
	for _, c := range []struct {
		name string
		m    *cri.Mount
		kind errs.Kind
	}{
		{"relative host path", &cri.Mount{ContainerPath: "/m", HostPath: "h"}, errs.Invalid},
		{"no host path", &cri.Mount{ContainerPath: "/m"}, errs.Invalid},
		{"the root", &cri.Mount{ContainerPath: "/x/..", HostPath: "/h"}, errs.Invalid},
		{"a descriptor", &cri.Mount{ContainerPath: "/proc/self/fd/3", HostPath: "/h"}, errs.Invalid},
		{"long", &cri.Mount{ContainerPath: "/" + strings.Repeat("m", 256), HostPath: "/h"}, errs.Invalid},
		{"zero byte", &cri.Mount{ContainerPath: "/m\x00", HostPath: "/h"}, errs.Invalid},
		{"image that is not mounted", &cri.Mount{ContainerPath: "/m", Image: &cri.ImageSpec{Image: "x"}}, errs.Invalid},
		{"sub path of no image", &cri.Mount{ContainerPath: "/m", HostPath: "/h", ImageSubPath: "x"}, errs.Invalid},
		{"option", &cri.Mount{ContainerPath: "/m", HostPath: "/h", MountOptions: []string{"suid"}}, errs.Unsupported},
		{"half a mapping", &cri.Mount{ContainerPath: "/m", HostPath: "/h", UidMappings: one}, errs.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, mounting(c.m), c.kind) })
	}
	in := mounting(&cri.Mount{ContainerPath: "/m", HostPath: "/h", UidMappings: one, GidMappings: one})
	build(t, in)
	in.Host.IDMapMounts = false
	refused(t, in, errs.Unsupported)
}

func TestResolvedSourcesAreUsed(t *testing.T) {
	in := mounting(&cri.Mount{ContainerPath: "/m", HostPath: "/link"}, &cri.Mount{ContainerPath: "/n", HostPath: "/link"})
	if d := cmp.Diff([]string{"/link"}, spec.MissingHostPaths(in.Container)); d != "" {
		t.Error(d)
	}
	in.Sources = map[string]string{"/link": "/real"}
	if m := mountAt(t, build(t, in), "/m"); m.Source != "/real" {
		t.Error(m.Source)
	}
}

func TestUserNamespaceMounts(t *testing.T) {
	in := input()
	in.Pod.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{
		Network: cri.NamespaceMode_NODE, Ipc: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_NODE,
		UsernsOptions: &cri.UserNamespace{Uids: []*cri.IDMapping{{HostId: 9000, Length: 1}}, Gids: []*cri.IDMapping{{HostId: 9000, Length: 1}}},
	}}
	s := build(t, in)
	if mountAt(t, s, "/sys").Type != "bind" || mountAt(t, s, "/proc").Type != "bind" {
		t.Error("the host's sysfs and proc cannot be mounted anew")
	}
	if slices.Contains(mountAt(t, s, "/dev/pts").Options, "gid=5") {
		t.Error("devpts names a group that is not mapped")
	}
	for _, m := range s.Mounts {
		if m.Type == "mqueue" {
			t.Error("the host's mqueue cannot be mounted anew")
		}
	}
}

func TestImageVolumes(t *testing.T) {
	volumes := func(paths ...string) ispec.ImageConfig {
		c := ispec.ImageConfig{Volumes: map[string]struct{}{}}
		for _, p := range paths {
			c.Volumes[p] = struct{}{}
		}
		return c
	}
	c := &cri.ContainerConfig{Mounts: []*cri.Mount{{ContainerPath: "/covered/"}}}
	got, err := spec.ImageVolumes(volumes("/b", "a", "/b/", "/covered", "/../../etc"), c)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/a", "/b", "/etc"}, got); d != "" {
		t.Error(d)
	}
	c.Mounts = append(c.Mounts, &cri.Mount{ContainerPath: "/sys/fs/cgroup"})
	got, err = spec.ImageVolumes(volumes("/proc", "/proc/self/fd", "/x/../sys/fs", "/sys/fs/cgroup", "/dev/", "/process"), c)
	if d := cmp.Diff([]string{"/process"}, got); d != "" || err != nil {
		t.Errorf("in the kernel's file systems: %v, %s", err, d)
	}
	for _, bad := range []string{"/", "", "/x/..", "/proc/..", "/a\x00", "/proc/\x00"} {
		if got, err := spec.ImageVolumes(volumes(bad), nil); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
	many := volumes()
	for i := range 300 {
		many.Volumes[fmt.Sprint("/v", i)] = struct{}{}
	}
	if _, err := spec.ImageVolumes(many, nil); !errors.Is(err, errs.Invalid) {
		t.Errorf("300 volumes: %v", err)
	}
}
