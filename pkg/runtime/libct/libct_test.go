package libct

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// The test binary is also the helper of the engine under test.
func init() { Init() }

// parent is the cgroup under which all tests work; it must be gone afterwards.
const parent = "/berth-libct-test"

func TestMain(m *testing.M) {
	if err := Seal(); err != nil {
		fmt.Println("runs unsealed, and slower:", err)
	}
	code := m.Run()
	for _, dir := range leftCgroups() {
		fmt.Println("left over:", dir)
		code = 1
	}
	os.Exit(code)
}

func leftCgroups() []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		found, _ := filepath.Glob(pattern)
		for _, dir := range found {
			children, _ := filepath.Glob(dir + "/*/")
			if len(children) > 0 || os.Remove(dir) != nil {
				left = append(left, append(children, dir)...)
			}
		}
	}
	return left
}

func newEngine(t testing.TB) *Engine {
	t.Helper()
	testutil.Root(t)
	e, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// rootfs makes a root file system that borrows the host's programs.
func rootfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != "/tmp"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // users of user namespaces pass here
			t.Fatal(err)
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "etc", "usr", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+l, filepath.Join(dir, l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func baseSpec(t testing.TB, id string, args ...string) *specs.Spec {
	t.Helper()
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	return &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: rootfs(t)},
		Hostname: "box",
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env:          []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/usr", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: parent + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{},
		},
	}
}

// box is a container of a test.
type box struct {
	t      testing.TB
	e      *Engine
	id     string
	spec   *specs.Spec
	p      runtime.Process
	stdout *os.File
	waited bool
	execs  int
}

// create makes a container and removes it at the end of the test.
func create(t testing.TB, e *Engine, id string, spec *specs.Spec) *box {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Create(context.Background(), id, spec, runtime.ProcessIO{Stdout: w, Stderr: w})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, e: e, id: id, spec: spec, p: p, stdout: r}
	t.Cleanup(b.destroy)
	return b
}

func (b *box) destroy() {
	if err := b.e.Destroy(context.Background(), b.id); err != nil {
		b.t.Errorf("destroy: %v", err)
	}
	if !b.waited {
		wait(b.t, b.p)
	}
	_ = b.stdout.Close()
}

func (b *box) start() *box {
	b.t.Helper()
	if err := b.e.Start(context.Background(), b.id, OpenGate); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// output starts the container and returns all that it writes, and its status.
func (b *box) output() (string, int) {
	b.t.Helper()
	b.start()
	data, err := io.ReadAll(b.stdout)
	if err != nil {
		b.t.Fatal(err)
	}
	b.waited = true
	return string(data), wait(b.t, b.p)
}

// wait reaps a process as the supervisor does, and returns its exit code.
func wait(t testing.TB, p runtime.Process) int {
	t.Helper()
	deadline := time.AfterFunc(20*time.Second, func() { _ = unix.Kill(p.PID, unix.SIGKILL) })
	defer deadline.Stop()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(p.PID, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatalf("wait for %d: %v", p.PID, err)
		}
		break
	}
	_ = p.PIDFD.Close()
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// process is what an exec gets unless a test changes it.
func (b *box) process(args ...string) *specs.Process {
	p := *b.spec.Process
	p.Args, p.Terminal = args, false
	return &p
}

func (b *box) execID() string { b.execs++; return fmt.Sprintf("e%d", b.execs) }

// run executes p in the container and returns its output and exit code.
func (b *box) run(p *specs.Process) (string, int, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	x, err := b.e.Exec(context.Background(), b.id, b.execID(), p, runtime.ProcessIO{Stdout: w, Stderr: w})
	_ = w.Close()
	if err != nil {
		return "", 0, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		b.t.Fatal(err)
	}
	code := wait(b.t, x.Process)
	if err := x.Release(); err != nil {
		b.t.Errorf("release: %v", err)
	}
	return string(data), code, nil
}

// sh executes a script in the container, which must succeed.
func (b *box) sh(script string) string {
	b.t.Helper()
	out, code, err := b.run(b.process("/bin/sh", "-c", script))
	if err != nil || code != 0 {
		b.t.Fatalf("%s: exit %d, %v: %s", script, code, err, out)
	}
	return strings.TrimSpace(out)
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func need(t testing.TB, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	testutil.Need(t, err == nil, program)
}
