package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

func TestExecIsWhereAndWhoItShouldBe(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "x1", "/bin/sleep", "1000")
	b := create(t, e, "x1", spec).start()
	for what, test := range map[string]struct{ script, want string }{
		"namespaces":      {`for n in mnt net ipc uts pid cgroup user; do [ "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" ] || echo $n; done`, ""},
		"hostname":        {"hostname", "box"},
		"session":         {`set -- $(cut -d" " -f1,6 /proc/self/stat); cut -d" " -f6 /proc/$$/stat | grep -qx $$ && echo leads`, "leads"},
		"descriptors":     {"exec ls /proc/self/fd", "0\n1\n2\n3"},
		"inheritable":     {"grep CapInh /proc/self/status | cut -f2", "0000000000000000"},
		"ambient":         {"grep CapAmb /proc/self/status | cut -f2", "0000000000000000"},
		"bounding":        {"diff <(grep Cap /proc/self/status) <(grep Cap /proc/1/status) && echo same", "same"},
		"signals":         {"grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 | tr '\\n' ' '", "0000000000000000 0000000000000000"},
		"exe is not ours": {"readlink /proc/$$/exe; :", "/usr/bin/bash"},
		"v1 cgroups":      {`grep -v '^0:' /proc/1/cgroup | cmp - /dev/fd/3 3<<<"$(grep -v '^0:' /proc/self/cgroup)" && echo same`, "same"},
	} {
		out, code, err := b.run(b.process("/bin/bash", "-c", test.script))
		if err != nil || code > 1 {
			t.Errorf("%s: exit %d, %v: %s", what, code, err, out)
		}
		expect(t, what, out, test.want)
	}
}

func TestExecTakesTheProcessAsGiven(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x2", baseSpec(t, "x2", "/bin/sleep", "1000")).start()
	umask, adj := uint32(0o27), 321
	p := b.process("/bin/bash", "-c", "id -u; id -g; id -G; umask; pwd; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; echo $A$B; grep -E 'NoNewPrivs|CapEff|CapPrm|CapBnd' /proc/self/status | cut -f2")
	p.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 2000}, Umask: &umask}
	p.Cwd, p.NoNewPrivileges, p.OOMScoreAdj = "/usr/bin", true, &adj
	p.Env = append(p.Env, "A=old", "B=b", "A=new")
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
	out, code, err := b.run(p)
	if err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	kill := "0000000000000020"
	want := []string{"1000", "1001", "1001 5 2000", "0027", "/usr/bin", "100", "200", "321", "newb", kill, kill, kill, "1"}
	if got := strings.Split(strings.TrimSpace(out), "\n"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestExecSaysWhatIsWrong(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x3", baseSpec(t, "x3", "/bin/sleep", "1000")).start()
	for _, test := range []struct {
		change func(*specs.Process)
		kind   errs.Kind
		want   string
	}{
		{func(p *specs.Process) { p.Args = []string{"nope"} }, errs.NoProgram, "executable file not found in $PATH"},
		{func(p *specs.Process) { p.Args = []string{"/nope"} }, errs.NoProgram, "no such file"},
		{func(p *specs.Process) { p.Args = []string{"/etc"} }, errs.NoExecutable, "is a directory"},
		{func(p *specs.Process) { p.Args = []string{"/proc/version"} }, errs.NoExecutable, "permission denied"},
		{func(p *specs.Process) { p.Cwd = "/nope" }, errs.Invalid, "/nope"},
		{func(p *specs.Process) { p.Env = []string{"=x"} }, errs.Invalid, "environment"},
		{func(p *specs.Process) { p.Env = nil; p.Args = []string{"true"} }, errs.NoProgram, "executable file not found in $PATH"},
	} {
		p := b.process("true")
		test.change(p)
		_, _, err := b.run(p)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q, %v, got %v", test.want, test.kind, err)
		}
	}
	_, err := e.Exec(t.Context(), "unknown", "e", b.process("true"), runtime.ProcessIO{})
	if !errors.Is(err, errs.NotFound) {
		t.Errorf("unknown container: %v", err)
	}
}

// CVE-2024-21626: a working directory that names a leaked descriptor.
func TestWorkingDirectoryCannotBeADescriptor(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x4", baseSpec(t, "x4", "/bin/sleep", "1000")).start()
	for fd := range 64 {
		for _, dir := range []string{"/proc/self/fd/%d", "/proc/self/fd/%d/../..", "/proc/thread-self/fd/%d"} {
			p := b.process("/bin/pwd")
			p.Cwd = fmt.Sprintf(dir, fd)
			if out, code, err := b.run(p); err == nil {
				t.Fatalf("%s: exit %d: %s", p.Cwd, code, out)
			}
		}
	}
}

func TestKillEndsTheWholeTreeAndNothingElse(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x5", baseSpec(t, "x5", "/bin/sleep", "1000")).start()
	start := func(mark string) runtime.ExecProcess {
		// A double fork into another session, as a daemon does it.
		script := fmt.Sprintf("setsid sh -c 'sleep %s & sleep %s & wait' & sleep %s", mark, mark, mark)
		x, err := e.Exec(t.Context(), "x5", mark, b.process("/bin/bash", "-c", script), runtime.ProcessIO{})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	count := func(mark string) string { return b.sh("grep -lsz '^" + mark + "$' /proc/[0-9]*/cmdline | wc -l") }
	await := func(mark, want string) {
		t.Helper()
		for range 200 {
			if count(mark) == want {
				return
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
		}
		t.Errorf("%s: %s processes, want %s", mark, count(mark), want)
	}
	one, two := start("1111"), start("2222")
	await("1111", "3")
	await("2222", "3")
	if err := one.Kill(); err != nil {
		t.Fatal(err)
	}
	if code := wait(t, one.Process); code != 137 {
		t.Errorf("exit %d", code)
	}
	await("1111", "0")
	await("2222", "3")
	if err := errors.Join(one.Release(), two.Kill()); err != nil {
		t.Error(err)
	}
	wait(t, two.Process)
	if err := two.Release(); err != nil {
		t.Error(err)
	}
	if err := two.Kill(); err != nil {
		t.Errorf("kill after release: %v", err)
	}
}

func TestExecGetsTheContainersSeccompFilter(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "x6", "/bin/sleep", "1000")
	errno := uint(unix.EXDEV)
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
	b := create(t, e, "x6", spec).start()
	for _, nnp := range []bool{false, true} {
		p := b.process("/bin/sh", "-c", "mkdir /tmp/d 2>&1; grep -E 'Seccomp(_filters)?:' /proc/self/status /proc/1/status | cut -f2 | tr '\\n' ' '")
		p.NoNewPrivileges = nnp
		out, _, err := b.run(p)
		if err != nil || !strings.Contains(out, "Invalid cross-device link") || !strings.Contains(out, "2 1 2 1") {
			t.Errorf("no_new_privs %t: %v: %s", nnp, err, out)
		}
	}
}

func TestExecWithTerminal(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x7", baseSpec(t, "x7", "/bin/sleep", "1000")).start()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	p := b.process("/bin/sh", "-c", "tty; stty size; exec 0<&- 1>&- 2>&-")
	p.Terminal, p.User.UID = true, 1000
	x, err := e.Exec(t.Context(), "x7", "tty", p, runtime.ProcessIO{Console: theirs, Width: 90, Height: 30})
	if err != nil {
		t.Fatal(err)
	}
	master := receiveTerminal(t, ours)
	defer master.Close()
	buf, n := make([]byte, 256), 0
	for !strings.Contains(string(buf[:n]), "30 90") {
		k, err := master.Read(buf[n:])
		if err != nil {
			t.Fatalf("%v after %q", err, buf[:n])
		}
		n += k
	}
	expect(t, "terminal", string(buf[:n]), "/dev/pts/0\r\n30 90")
	if code := wait(t, x.Process); code != 0 {
		t.Errorf("exit %d", code)
	}
	if err := x.Release(); err != nil {
		t.Error(err)
	}
}

func receiveTerminal(t *testing.T, socket *os.File) *os.File {
	t.Helper()
	space := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 64), space, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(space[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal")
}

func TestExecThroughLibcontainerWhereTheHelperCannot(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x8", baseSpec(t, "x8", "/bin/sleep", "1000")).start()
	p := b.process("/bin/sh", "-c", "ionice; hostname; grep CapEff /proc/self/status | cut -f2")
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	out, code, err := b.run(p)
	if err != nil || code != 0 || !strings.HasPrefix(out, "best-effort: prio 6\nbox\n") {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	p.Args = []string{"/nope"}
	if _, _, err := b.run(p); !errors.Is(err, errs.NoProgram) {
		t.Errorf("missing program: %v", err)
	}
	expect(t, "capabilities", strings.Split(out, "\n")[2], b.sh("grep CapEff /proc/self/status | cut -f2"))
}

func TestExecInFrozenOrEndedContainer(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x9", baseSpec(t, "x9", "/bin/sleep", "1000")).start()
	for _, frozen := range []bool{true, true, false, false} {
		if err := e.Freeze(t.Context(), "x9", frozen); err != nil {
			t.Fatal(err)
		}
		_, _, err := b.run(b.process("true"))
		if frozen != errors.Is(err, errs.Conflict) || !frozen && err != nil {
			t.Errorf("frozen %t: %v", frozen, err)
		}
	}
	if err := e.Signal(t.Context(), "x9", int(unix.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	b.waited = true
	wait(t, b.p)
	if _, _, err := b.run(b.process("true")); !errors.Is(err, errs.Conflict) {
		t.Errorf("ended: %v", err)
	}
}

func TestBackgroundProcessOfAnExecLivesOn(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "x10", baseSpec(t, "x10", "/bin/sleep", "1000")).start()
	if _, code, err := b.run(b.process("/bin/bash", "-c", "sleep 4444 >/dev/null 2>&1 & exit 3")); err != nil || code != 3 {
		t.Fatalf("exit %d, %v", code, err)
	}
	testutil.Await(t, 10*time.Second, func() error { // it may not be sleep yet
		if n := b.sh("grep -lsz '^4444$' /proc/[0-9]*/cmdline | wc -l"); n != "1" {
			return fmt.Errorf("%s are left behind", n)
		}
		return nil
	})
}

func BenchmarkExec(b *testing.B) {
	e := newEngine(b)
	box := create(b, e, "bench", baseSpec(b, "bench", "/bin/sleep", "1000")).start()
	for b.Loop() {
		execTrue(b, box, box.execID())
	}
}

// BenchmarkExecParallel is eight at once.
func BenchmarkExecParallel(b *testing.B) {
	e := newEngine(b)
	box := create(b, e, "bench", baseSpec(b, "bench", "/bin/sleep", "1000")).start()
	var n atomic.Int64
	b.SetParallelism(max(1, 8/goruntime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			execTrue(b, box, fmt.Sprint(n.Add(1)))
		}
	})
}

func execTrue(b *testing.B, box *box, execID string) {
	x, err := box.e.Exec(context.Background(), "bench", execID, box.process("/usr/bin/busybox", "true"), runtime.ProcessIO{})
	if err != nil {
		b.Error(err)
		return
	}
	wait(b, x.Process)
	if err := x.Release(); err != nil {
		b.Error(err)
	}
}
