package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// vendor describes a device e2e.local/NAME=a, with all that a GPU's has, and returns
// the directory of its files: gpu, the node, lib, and state and config.json, what its
// hook was told and read.
func vendor(t *testing.T, class, hook string) string {
	t.Helper()
	dir := t.TempDir()
	// The kernel's log: no container may open it, but it wants no capability of who
	// only writes.
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777), unix.Mknod(filepath.Join(dir, "gpu"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))),
		os.Chmod(filepath.Join(dir, "gpu"), 0o622), os.Mkdir(filepath.Join(dir, "lib"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "lib", "libgpu.so"), "driver\n")
	script := `read -r s || :; b=${s#*\"bundle\":\"}; b=${b%%\"*}; printf %s "$s" >"$0/state"; cat "$b/config.json" >"$0/config.json"`
	spec := map[string]any{
		"cdiVersion": "0.6.0", "kind": "e2e.local/" + class,
		"containerEdits": map[string]any{
			"env": []string{"GPU_DRIVER=1.0"},
			"mounts": []any{
				map[string]any{"hostPath": dir + "/lib", "containerPath": "/usr/lib/gpu", "options": []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}},
				map[string]any{"hostPath": "/dev/null", "containerPath": "/run/gpu/void", "options": []string{"ro", "nosuid", "nodev", "bind"}}, // NVIDIA's have that
			},
			"hooks": []any{map[string]any{"hookName": hook, "path": "/bin/sh", "args": []string{"sh", "-c", script, dir}}},
		},
		"devices": []any{map[string]any{"name": "a", "containerEdits": map[string]any{
			"env":         []string{"GPU=a"},
			"deviceNodes": []any{map[string]any{"path": "/dev/gpu-a", "hostPath": dir + "/gpu", "permissions": "w"}},
		}}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	specify(t, class, string(text))
	return dir
}

// specify gives the node a specification, until the end of the test.
func specify(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(berth.Dir, "cdi", name+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, path, text)
	t.Cleanup(func() { os.Remove(path) })
}

// useGPU tells what the device of vendor gives.
const useGPU = `echo $GPU $GPU_DRIVER; cat /usr/lib/gpu/libgpu.so; touch /usr/lib/gpu/x 2>/dev/null || echo read-only; : >/dev/gpu-a && echo writable; head -c1 /dev/gpu-a 2>&1`

// wantHook checks what the hook of a container was told and read.
func wantHook(t *testing.T, dir string, c *ctr) {
	t.Helper()
	var state specs.State
	var config specs.Spec
	for name, v := range map[string]any{"state": &state, "config.json": &config} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, text)
		}
	}
	if state.ID != c.id || state.Status != specs.StateCreating || config.Root == nil || !filepath.IsAbs(config.Root.Path) || len(config.Mounts) == 0 {
		t.Errorf("the hook is told %+v and reads of %+v", state, config.Root)
	}
	if _, err := os.Stat(state.Bundle); err != nil {
		t.Error(err)
	}
	if _, err := berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(state.Bundle); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bundle outlives its container: %v", err)
	}
}

func TestDevicesOfVendorsComeByFieldAndByAnnotation(t *testing.T) {
	for name, ask := range map[string]func(*cri.ContainerConfig, string){
		"field": func(c *cri.ContainerConfig, device string) { c.CDIDevices = []*cri.CDIDevice{{Name: device}} },
		"annotation": func(c *cri.ContainerConfig, device string) {
			c.Annotations = map[string]string{"cdi.k8s.io/plugin_1": device}
		},
		"both": func(c *cri.ContainerConfig, device string) {
			c.CDIDevices = []*cri.CDIDevice{{Name: device}}
			c.Annotations = map[string]string{"cdi.k8s.io/plugin_1": device}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := vendor(t, name, "createRuntime")
			config := sh(useGPU)
			ask(config, "e2e.local/"+name+"=a")
			c := runPod(t).start(config)
			if out := c.output(); !strings.HasPrefix(out, "a 1.0\ndriver\nread-only\nwritable\n") || !strings.Contains(out, "not permitted") {
				t.Errorf("got %q", out)
			}
			wantHook(t, dir, c)
		})
	}
}

func TestRunGivesDevices(t *testing.T) {
	vendor(t, "run", "createRuntime")
	got := try(t, "", "run", "--rm", "--device", "/dev/full:/dev/sub/full:w", "--device", "e2e.local/run=a", busybox, "/bin/sh", "-c", useGPU+"; ls /dev/sub")
	if got.code != 0 || !strings.HasPrefix(got.stdout, "a 1.0\ndriver\nread-only\nwritable\n") || !strings.HasSuffix(got.stdout, "full\n") {
		t.Errorf("got %v", got)
	}
	if got := try(t, "", "run", "--rm", "--device", "e2e.local/run=b", busybox, "true"); got.code != 125 || !strings.Contains(got.stderr, "e2e.local/run=b") {
		t.Errorf("an unknown one: %v", got)
	}
}

func TestDevicesOfVendorsInAUserNamespace(t *testing.T) {
	dir := vendor(t, "userns", "createContainer")
	config := sh("head -c3 /dev/my/zero | wc -c; stat -c %u:%g /usr/lib/gpu; " + useGPU)
	config.CDIDevices = []*cri.CDIDevice{{Name: "e2e.local/userns=a"}}
	config.Devices = []*cri.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/my/zero", Permissions: "r"}}
	c := runPod(t, own, userNS).start(config)
	if out := c.output(); !strings.HasPrefix(out, "3\n0:0\na 1.0\ndriver\nread-only\nwritable\n") || !strings.Contains(out, "denied") {
		t.Errorf("got %q", out)
	}
	wantHook(t, dir, c)
}

func TestANetworkDeviceMovesIntoThePod(t *testing.T) {
	if out, err := exec.Command("ip", "link", "add", "e2ecdi0", "type", "veth", "peer", "name", "e2ecdi1").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", "e2ecdi1").Run() }) // it is gone with the pod
	specify(t, "nic", `{"cdiVersion":"1.1.0","kind":"e2e.local/nic","devices":[{"name":"a","containerEdits":{"netDevices":[{"hostInterfaceName":"e2ecdi0","name":"rdma0"}]}}]}`)
	config := sh("ls /sys/class/net")
	config.CDIDevices = []*cri.CDIDevice{{Name: "e2e.local/nic=a"}}
	if out := runPod(t, own).start(config).output(); !strings.Contains(out, "rdma0") {
		t.Errorf("got %q", out)
	}
}

func TestADeviceThatCannotBeGivenIsAClearError(t *testing.T) {
	vendor(t, "broken", "createRuntime")
	specify(t, "other", "no specification")
	p := runPod(t)
	for device, part := range map[string]string{"e2e.local/broken=b": berth.Dir + "/cdi", "/dev/null": "VENDOR/CLASS=NAME"} {
		config := sh("true")
		config.CDIDevices = []*cri.CDIDevice{{Name: "e2e.local/broken=a"}, {Name: device}}
		err := p.createError(config)
		if code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), device) || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", device, err)
		}
	}
	specify(t, "failing", `{"cdiVersion":"0.6.0","kind":"e2e.local/failing","devices":[{"name":"a","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/bin/sh","args":["sh","-c","echo no driver >&2; exit 1"]}]}}]}`)
	config := sh("true")
	config.CDIDevices = []*cri.CDIDevice{{Name: "e2e.local/failing=a"}}
	if err := p.createError(config); err == nil || !strings.Contains(err.Error(), "no driver") {
		t.Errorf("a hook that fails: %v", err)
	}
	r, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: p.id}})
	if err != nil || len(r.Containers) > 0 {
		t.Errorf("left over: %v, %v", r, err)
	}
	if left, err := os.ReadDir(filepath.Join(berth.State(), "bundles")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
