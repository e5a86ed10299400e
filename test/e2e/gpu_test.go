package e2e

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

// nvidia describes the machine's GPUs to the node as their vendor's own tool does,
// nvidia-ctk, which a machine that has some must have in its PATH.
func nvidia(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/nvidiactl"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("this machine has no GPU of NVIDIA")
	}
	hook, err := exec.LookPath("nvidia-cdi-hook")
	if err != nil {
		t.Fatal("github.com/NVIDIA/nvidia-container-toolkit has it: ", err)
	}
	path := filepath.Join(berth.Dir, "cdi", "nvidia.json")
	out, err := exec.Command("nvidia-ctk", "cdi", "generate", "--format", "json", "--nvidia-cdi-hook-path", hook, "--output", path).CombinedOutput()
	t.Cleanup(func() { os.Remove(path) })
	if err != nil {
		t.Fatal(err, string(out))
	}
}

// gpuImage has a program that computes on a GPU, and what of the C library that and
// nvidia-smi want, but no driver. It returns the path of nvidia-smi, too, which is in
// a container where it is outside.
func gpuImage(t *testing.T) (name, smi string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "square")
	if out, err := exec.Command("gcc", "-O1", "-o", program, "testdata/square.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := exec.Command("ldd", program, smi).Output()
	if err != nil {
		t.Fatal(err)
	}
	layer := images.Layer{Files: []images.File{file(t, program, "bin/square")}}
	for word := range strings.FieldsSeq(string(libraries)) {
		if filepath.IsAbs(word) && !strings.HasSuffix(word, ":") {
			layer.Files = append(layer.Files, file(t, word, word[1:]))
		}
	}
	i, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	i.Layers = append(i.Layers, layer)
	name = "e2e.local/gpu:1"
	if err := load(name, i); err != nil {
		t.Fatal(err)
	}
	return name, smi
}

func file(t *testing.T, path, name string) images.File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return images.File{Name: name, Data: data, Mode: 0o755}
}

func TestAGPUComputesInAContainer(t *testing.T) {
	nvidia(t)
	image, smi := gpuImage(t)
	want, err := exec.Command(smi, "-L").Output()
	if err != nil {
		t.Fatal(err)
	}
	gpus := strings.TrimSpace(string(want))

	for name, change := range map[string][]func(*cri.PodSandboxConfig){"node's users": {own}, "users of its own": {own, userNS}} {
		t.Run(name, func(t *testing.T) {
			config := sleeper()
			config.Image = &cri.ImageSpec{Image: image, UserSpecifiedImage: image}
			config.CDIDevices = []*cri.CDIDevice{{Name: "nvidia.com/gpu=all"}}
			c := runPod(t, change...).start(config)
			works := func(when string) {
				t.Helper()
				if got := c.sh(smi + " -L"); got != gpus {
					t.Errorf("%s: %q, outside %q", when, got, gpus)
				}
				if got := c.sh("square"); !strings.HasSuffix(got, " squares") {
					t.Errorf("%s: %q", when, got)
				}
			}
			works("at the start")
			// An update writes the rules of devices again, and kubelet's CPU manager
			// makes one every few seconds.
			if err := c.update(&cri.LinuxContainerResources{CpuShares: 600, MemoryLimitInBytes: 8 << 30}); err != nil {
				t.Fatal(err)
			}
			works("after an update")
			withoutDaemon(t, berth.Kill, func() {})
			works("after a restart")
		})
	}
}

func TestAGPUIsOnlyWhereItWasGiven(t *testing.T) {
	nvidia(t)
	image, _ := gpuImage(t)
	config := sh("ls /dev/nvidia*; square; mknod /tmp/ctl c 195 255 && head -c1 /tmp/ctl")
	config.Image = &cri.ImageSpec{Image: image, UserSpecifiedImage: image}
	out := runPod(t).start(config).output()
	for _, part := range []string{"/dev/nvidia*: No such file", "libcuda.so.1: cannot open", "/tmp/ctl: Operation not permitted"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	config = sh("true")
	config.CDIDevices = []*cri.CDIDevice{{Name: "nvidia.com/gpu=77"}}
	if err := runPod(t).createError(config); code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "nvidia.com/gpu=77") {
		t.Errorf("a GPU that is not there: %v", err)
	}
}

func TestRunGivesAGPU(t *testing.T) {
	nvidia(t)
	image, _ := gpuImage(t)
	if got := try(t, "", "run", "--rm", "--device", "nvidia.com/gpu=0", image, "square"); got.code != 0 || !strings.HasSuffix(got.stdout, " squares\n") {
		t.Errorf("got %v", got)
	}
}
