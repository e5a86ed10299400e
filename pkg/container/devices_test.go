package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// describe makes the node know vendor.com/gpu=a.
func (n *node) describe() {
	n.t.Helper()
	text := "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- {name: a, containerEdits: {env: [GPU=a], deviceNodes: [{path: /dev/gpu, hostPath: /dev/full}]}}\n"
	if err := os.WriteFile(filepath.Join(n.devices, "gpu.yaml"), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func TestDevicesOfVendorsReachTheRuntime(t *testing.T) {
	n := newNode(t)
	n.describe()
	byField, byAnnotation, byPod := testConfig("field"), testConfig("annotation"), testPod()
	byField.CDIDevices = []*cri.CDIDevice{{Name: "vendor.com/gpu=a"}}
	byAnnotation.Annotations = map[string]string{"cdi.k8s.io/plugin": "vendor.com/gpu=a"}
	byPod.Config.Annotations = byAnnotation.Annotations
	for _, c := range []*cri.ContainerConfig{byField, byAnnotation} {
		s, err := n.Spec(n.create(c))
		if err != nil {
			t.Fatal(err)
		}
		hasNode := slices.ContainsFunc(s.Linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == "/dev/gpu" && d.Minor == 7 })
		if !hasNode || !slices.Contains(s.Process.Env, "GPU=a") {
			t.Errorf("%s: devices %v, environment %q", c.Metadata.Name, s.Linux.Devices, s.Process.Env)
		}
	}
	id, err := n.Create(t.Context(), byPod, testConfig("pod"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := n.Spec(id); err != nil || len(s.Linux.Devices) != 0 {
		t.Errorf("an annotation of the pod gives %v, %v", s.Linux.Devices, err)
	}
}

func TestAnUnknownDeviceIsRefusedBeforeAnythingIsMade(t *testing.T) {
	n := newNode(t)
	n.describe()
	n.images.fill = func(string) error { t.Error("a root file system is made"); return nil }
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbCreate {
			t.Error("the runtime is asked")
		}
		return nil
	}
	c := testConfig("c")
	c.CDIDevices = []*cri.CDIDevice{{Name: "vendor.com/gpu=a"}, {Name: "vendor.com/gpu=b"}}
	_, err := n.Create(t.Context(), testPod(), c)
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "vendor.com/gpu=b") || !strings.Contains(err.Error(), n.devices) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(n.root, "containers")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	n.images.fill, n.runtime.Fail = nil, nil
	c.CDIDevices = c.CDIDevices[:1]
	n.create(c)
}
