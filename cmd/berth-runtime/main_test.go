package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// serve runs this program, built anew, on a state directory of its own.
func serve(t testing.TB) (c *runtime.Client, state string) {
	t.Helper()
	testutil.Root(t)
	state = t.TempDir()
	program := filepath.Join(state, "berth-runtime")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(program, "--state", state, "--log-level", "warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	c = runtime.Dial(filepath.Join(state, "runtime.sock"))
	await(t, c, func(runtime.Version) bool { return true })
	return c, state
}

// rootfs returns a root file system that holds one static program.
func rootfs(t testing.TB) string {
	t.Helper()
	testutil.Need(t, images.Static("/bin/busybox") == nil, "a static /bin/busybox (Debian's busybox-static)")
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for dir := root; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "proc", "dev"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	return root
}

// cgroup is the parent of all cgroups that the tests make.
var cgroup = fmt.Sprintf("/berth-test-%d", os.Getpid())

func TestMain(m *testing.M) {
	status := m.Run()
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		left, _ := filepath.Glob(pattern + cgroup)
		for _, dir := range left {
			if err := os.Remove(dir); err != nil {
				fmt.Println("left over:", err)
				status = 1
			}
		}
	}
	os.Exit(status)
}

func containerSpec(root, id string, args ...string) *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{Args: append([]string{"/bin/busybox"}, args...), Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
		},
	}
}

func TestBerthRuntimeConforms(t *testing.T) {
	c, _ := serve(t)
	root := rootfs(t)
	runtimetest.Run(t,
		func(*testing.T) runtime.Runtime { return c },
		func(_ *testing.T, id string) *specs.Spec { return containerSpec(root, id, "sleep", "1000") })
}

func run(t testing.TB, c *runtime.Client, r runtime.CreateRequest) {
	t.Helper()
	if _, err := c.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), r.ID); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
}

func TestTerminalCarriesInputOutputAndSize(t *testing.T) {
	c, state := serve(t)
	spec := containerSpec(rootfs(t), "tty", "sh", "-c", "read x; echo got $x; stty size; exit 4")
	spec.Process.Terminal = true
	log := filepath.Join(state, "log")
	if _, err := c.Create(t.Context(), runtime.CreateRequest{ID: "tty", Spec: spec, Stdin: true, LogPath: log}); err != nil {
		t.Fatal(err)
	}
	if err := c.Resize(t.Context(), "tty", 100, 30); err != nil {
		t.Error(err)
	}
	if _, err := c.Start(t.Context(), "tty"); err != nil {
		t.Fatal(err)
	}
	inR, inW, err1 := os.Pipe()
	outR, outW, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(inW, "hello")
	if err := c.Attach(t.Context(), runtime.AttachRequest{ID: "tty"}, runtime.AttachIO{Stdin: inR, Stdout: outW}); err != nil {
		t.Error(err)
	}
	outW.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(outR); err != nil || !strings.Contains(out.String(), "got hello\r\n30 100\r\n") {
		t.Errorf("client: %q, %v", out.String(), err)
	}
	data, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(data), "stdout F got hello") || !strings.Contains(string(data), "stdout F 30 100") {
		t.Errorf("log: %q, %v", data, err)
	}
	if err := c.Delete(t.Context(), "tty"); err != nil {
		t.Error(err)
	}
}

func TestExecRunsInTheContainer(t *testing.T) {
	c, _ := serve(t)
	spec := containerSpec(rootfs(t), "c", "sleep", "1000")
	run(t, c, runtime.CreateRequest{ID: "c", Spec: spec})
	p := *spec.Process
	p.Args = []string{"/bin/busybox", "sh", "-c", "echo $$; exit 3"}
	r, err := c.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &p})
	if err != nil || r.ExitCode != 3 || len(r.Stdout) == 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func BenchmarkCreateStartDelete(b *testing.B) {
	c, state := serve(b)
	root := rootfs(b)
	for b.Loop() {
		r := runtime.CreateRequest{ID: "c", Spec: containerSpec(root, "c", "sleep", "1000"), LogPath: filepath.Join(state, "log")}
		if _, err := c.Create(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Start(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
		if err := c.Delete(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}
