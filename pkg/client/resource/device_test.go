package resource

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func TestDevicesAreNodesOrVendors(t *testing.T) {
	node := func(host, path, permissions string) Devices {
		return Devices{Nodes: []*runtimeapi.Device{{HostPath: host, ContainerPath: path, Permissions: permissions}}}
	}
	for s, want := range map[string]Devices{
		"/dev/fuse":              node("/dev/fuse", "/dev/fuse", "rwm"),
		"/dev/fuse:r":            node("/dev/fuse", "/dev/fuse", "r"),
		"/dev/dri:/dev/gpu":      node("/dev/dri", "/dev/gpu", "rwm"),
		"/dev/dri:/dev/gpu:rw":   node("/dev/dri", "/dev/gpu", "rw"),
		"/dev/by=id":             node("/dev/by=id", "/dev/by=id", "rwm"),
		"nvidia.com/gpu=0":       {CDI: []*runtimeapi.CDIDevice{{Name: "nvidia.com/gpu=0"}}},
		"nvidia.com/gpu=0:1:all": {CDI: []*runtimeapi.CDIDevice{{Name: "nvidia.com/gpu=0:1:all"}}},
	} {
		var got Devices
		if err := got.Add(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("%q: %s", s, d)
		}
	}
	for _, s := range []string{"", "fuse", "dev/fuse", "nvidia.com/gpu", "/dev/fuse:", "/dev/fuse:x", "/dev/fuse:/", "/dev/fuse:/a:x", "/dev/fuse:/a:r:w"} {
		var got Devices
		if err := got.Add(s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
}

func FuzzDevices(f *testing.F) {
	f.Add("/dev/fuse:/dev/f:rw")
	f.Add("vendor.com/class=name")
	f.Fuzz(func(t *testing.T, s string) {
		var d Devices
		if err := d.Add(s); err != nil && !errors.Is(err, errs.Invalid) || err == nil && len(d.Nodes)+len(d.CDI) != 1 {
			t.Errorf("%q became %+v, %v", s, d, err)
		}
	})
}
