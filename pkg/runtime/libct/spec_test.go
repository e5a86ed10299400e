//go:build seccomp

package libct

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// output runs a container to its end.
func output(t *testing.T, id string, change func(*specs.Spec), script string) string {
	t.Helper()
	spec := baseSpec(t, id, "/bin/bash", "-c", script)
	change(spec)
	out, code := create(t, newEngine(t), id, spec).output()
	if code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	return strings.TrimSpace(out)
}

func lines(s ...string) string { return strings.Join(s, "\n") }

func TestFirstProcessHasNothingOfTheHost(t *testing.T) {
	got := output(t, "s1", func(*specs.Spec) {}, `
		ls /proc/self/fd
		grep -E 'Cap(Inh|Amb)' /proc/self/status | cut -f2
		wc -l < /proc/net/dev; readlink /proc/1/exe; :`)
	// 3 is the directory being listed; the network has only a loopback.
	expect(t, "first process", got, lines("0", "1", "2", "3", "0000000000000000", "0000000000000000", "3", "/usr/bin/bash"))
}

func TestProcessFields(t *testing.T) {
	umask, adj := uint32(0o77), 500
	got := output(t, "s2", func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}, Umask: &umask}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}}
		s.Process.OOMScoreAdj, s.Process.NoNewPrivileges, s.Process.Cwd = &adj, true, "/tmp"
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}
	}, `id -u; id -g; id -G; umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; pwd; grep -E 'CapEff|CapBnd|NoNew' /proc/self/status | cut -f2`)
	want := lines("1000", "1001", "1001 7", "0077", "64", "128", "500", "/tmp", "0000000000000000", "0000000000000020", "1")
	expect(t, "fields", got, want)
}

func TestWhatWeMayNotDoIsLowered(t *testing.T) {
	e := newEngine(t)
	e.limits.MayRaise, e.limits.OOMScoreAdjMin = false, 100
	delete(e.limits.Capabilities, "CAP_KILL")
	e.limits.Missing = append(e.limits.Missing, "CAP_KILL")
	adj := -900
	spec := baseSpec(t, "s3", "/bin/bash", "-c", "cat /proc/self/oom_score_adj; ulimit -Hn; grep CapBnd /proc/self/status | cut -f2")
	spec.Process.OOMScoreAdj = &adj
	spec.Process.Capabilities.Bounding = []string{"CAP_KILL", "CAP_CHOWN"}
	spec.Process.Capabilities.Effective, spec.Process.Capabilities.Permitted = nil, nil
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}
	out, _ := create(t, e, "s3", spec).output()
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(out)
	if len(got) != 3 || got[0] != "100" || got[2] != "0000000000000001" {
		t.Errorf("got %q", got)
	}
	if adj != -900 || spec.Process.Rlimits[0].Hard != 1<<40 {
		t.Error("the caller's spec was changed")
	}
	if words := e.Limits(); !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, "CAP_KILL") }) {
		t.Errorf("limits: %q", words)
	}
}

func TestMountsAndPaths(t *testing.T) {
	host := t.TempDir()
	if err := os.MkdirAll(filepath.Join(host, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(host, "sub"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(host, "sub"), unix.MNT_DETACH) })
	got := output(t, "s4", func(s *specs.Spec) {
		s.Root.Readonly = true
		s.Linux.MaskedPaths = []string{"/proc/version", "/data/none"}
		s.Linux.ReadonlyPaths = []string{"/proc/sys"}
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/data", Type: "bind", Source: host, Options: []string{"rbind", "rro", "rprivate"}},
			specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64k"}},
			specs.Mount{Destination: "/tmp", Type: "bind", Source: host, Options: []string{"rbind", "rw", "rslave"}},
		)
	}, `touch /x 2>/dev/null || echo ro root
		touch /data/x 2>/dev/null || echo ro data; touch /data/sub/x 2>/dev/null || echo ro sub; touch /tmp/sub/y && echo rw tmp
		echo 1 2>/dev/null > /proc/sys/kernel/shmmni || echo ro sysctl
		wc -c < /proc/version; grep ' /tmp ' /proc/self/mountinfo | grep -o 'master:' | head -1; df --output=size /dev/shm | tail -1 | tr -d ' '
		mount --bind / /tmp 2>/dev/null || echo no mount`)
	want := lines("ro root", "ro data", "ro sub", "rw tmp", "ro sysctl", "0")
	if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, lines("64", "no mount")) {
		t.Errorf("got %q", got)
	}
}

func TestDevices(t *testing.T) {
	full, mode := int64(7), os.FileMode(0o666)
	major := int64(1)
	got := output(t, "s5", func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/mine", Type: "c", Major: 1, Minor: 7, FileMode: &mode},
			{Path: "/dev/kmsg2", Type: "c", Major: 1, Minor: 11, FileMode: &mode},
		}
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"},
			{Allow: true, Type: "c", Major: &major, Minor: &full, Access: "rw"},
		}
	}, `(echo x > /dev/mine) 2>&1 | grep -o 'No space'; (head -c1 /dev/kmsg2) 2>&1 | grep -o 'not permitted'; head -c3 /dev/zero | wc -c; ls /dev/null /dev/pts/ptmx`)
	expect(t, "devices", got, lines("No space", "not permitted", "3", "/dev/null", "/dev/pts/ptmx"))
}

// overwriter keeps a descriptor of each program that is not the host's (/usr) of
// processes that it sees, as the published attack does, and writes to it until it can
// or has tried for long: a program that is being executed cannot be written to.
const overwriter = `n=0; while [ $((n=n+1)) -lt 20000 ]; do for p in /proc/[0-9]*; do
	exe=$(readlink $p/exe 2>/dev/null) || continue
	case $exe in /usr/*) continue;; esac
	{ exec 7<$p/exe; } 2>/dev/null || continue
	echo found; i=0
	while [ $((i=i+1)) -lt 500 ]; do { echo evil >/proc/self/fd/7; } 2>/dev/null && echo overwritten; done
	exit
done; done`

// CVE-2019-5736: a program that is /proc/self/exe must not reach our binary.
func TestProgramOfTheRuntimeCannotBeWritten(t *testing.T) {
	e := newEngine(t)
	program := fmt.Sprintf("/proc/self/fd/%d", e.exe.Fd())
	before, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	b := create(t, e, "s6", baseSpec(t, "s6", "/bin/sleep", "1000")).start()
	script := filepath.Join(b.spec.Root.Path, "tmp", "x")
	if err := os.WriteFile(script, []byte("#!/proc/self/exe -test.run=^TestSleep$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	attack := make(chan string, 1)
	go func(attacker box) { // ends with the script, whose rounds are counted
		attacker.execs = 10000
		out, _, err := attacker.run(attacker.process("/bin/bash", "-c", overwriter))
		attack <- fmt.Sprint(out, err)
	}(*b)
	said := ""
	for n := 0; said == "" && n < 500; n++ {
		_, _, _ = b.run(b.process("/tmp/x")) // runs our own program there, as the container
		select {
		case said = <-attack:
		default:
		}
	}
	if said == "" {
		said = <-attack
	}
	if !strings.Contains(said, "found") || strings.Contains(said, "overwritten") {
		t.Errorf("the attacker says %q", said)
	}
	if after, err := os.ReadFile(program); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the program is another, of %d bytes: %v", len(after), err)
	}
	for _, seal := range []int{unix.F_SEAL_WRITE, unix.F_SEAL_GROW, unix.F_SEAL_SHRINK} {
		seals, err := unix.FcntlInt(e.exe.Fd(), unix.F_GET_SEALS, 0)
		if err != nil || seals&seal == 0 {
			t.Errorf("seals %x, %v", seals, err)
		}
	}
}

func TestSeccompOfFirstProcessAndExecAreEqual(t *testing.T) {
	e := newEngine(t)
	testutil.Need(t, unix.Access("/proc/self/status", unix.R_OK) == nil, "/proc")
	spec := baseSpec(t, "s7", "/bin/bash", "-c", "mkdir /tmp/a 2>&1; python3 -c 'import ctypes; l=ctypes.CDLL(None, use_errno=True); l.syscall(700); print(ctypes.get_errno())' 2>&1; exec sleep 1000")
	need(t, "python3")
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls:      []specs.LinuxSyscall{{Names: allSyscallsBut("mkdir", "mkdirat"), Action: specs.ActAllow}},
	}
	b := create(t, e, "s7", spec).start()
	script := "mkdir /tmp/b 2>&1 | grep -o 'not permitted'; python3 -c 'import ctypes; l=ctypes.CDLL(None, use_errno=True); l.syscall(700); print(ctypes.get_errno())'"
	expect(t, "exec", b.sh(script), lines("not permitted", "38")) // ENOSYS: newer than the profile
	later, err := New(Options{Root: e.opts.Root})                 // as after a restart of the worker
	if err != nil {
		t.Fatal(err)
	}
	b.e = later
	expect(t, "exec by another engine", b.sh(script), lines("not permitted", "38"))
	b.e = e
	buf := make([]byte, 4096)
	got := ""
	for strings.Count(got, "\n") < 2 {
		n, err := b.stdout.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	if !strings.Contains(got, "not permitted") || !strings.HasSuffix(got, "\n38\n") {
		t.Errorf("first process: %q", got)
	}
}

func TestTheGivenProfileIsNotLeftOpen(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "s8", "/bin/bash", "-c", "for n in {3..99}; do [ -e /proc/$$/fd/$n ] && echo -n \"$n \"; done; echo listed; exec sleep 1000")
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: allSyscallsBut("mkdir"), Action: specs.ActAllow}},
	}
	b := create(t, e, "s8", spec).start()
	buf := make([]byte, 4096)
	n, err := b.stdout.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "open in the container", string(buf[:n]), "listed")
}

func TestAnExecByLibcontainerHasTheProfileToo(t *testing.T) {
	spec := baseSpec(t, "s9", "/bin/sleep", "1000")
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: allSyscallsBut("mkdir", "mkdirat"), Action: specs.ActAllow}},
	}
	b := create(t, newEngine(t), "s9", spec).start()
	p := b.process("/bin/sh", "-c", "mkdir /tmp/x 2>/dev/null || echo refused; grep Seccomp: /proc/self/status | cut -f2")
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	out, code, err := b.run(p)
	if err != nil || code != 0 || out != "refused\n2\n" {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
}
