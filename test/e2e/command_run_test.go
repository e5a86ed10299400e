package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRunShowsWhatIsWrittenAndEndsAsTheContainer(t *testing.T) {
	name := named(t)
	got := try(t, "", "run", "--rm", "--name", name, busybox, "/bin/sh", "-c", "echo out; echo err >&2; printf unended; exit 7")
	if want := (end{"out\nunended", "err\n", 7}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if c := listed(t, name); c.ID != "" {
		t.Errorf("left is %v", c)
	}
	kept := named(t)
	command(t, "run", "--name", kept, busybox, "true")
	if c := listed(t, kept); c.State != "exited" || !strings.HasPrefix(c.Status, "Exited (0)") {
		t.Errorf("without --rm: %v", c)
	}
}

func TestRunReadsStdin(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 1<<16)
	if got := try(t, long, "run", "--rm", "-i", busybox, "cat"); got.stdout != long || got.code != 0 {
		t.Errorf("got %d bytes of %d, %q, exit %d", len(got.stdout), len(long), got.stderr, got.code)
	}
	if got := try(t, "unread", "run", "--rm", busybox, "cat"); got != (end{}) {
		t.Errorf("without -i: %v", got)
	}
}

func TestRunTakesItsFlags(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "file"), "of the host\n")
	write(t, filepath.Join(files, "env"), "# comment\nFROM=file\nBOTH=file\n")
	t.Setenv("HOSTS_OWN", "of the host")
	net := namespace(t, "net")
	for name, c := range map[string]struct {
		flags  []string
		script string
		want   string
	}{
		"environment":    {[]string{"-e", "A=1 2", "-e", "HOSTS_OWN", "-e", "BOTH=flag", "--env-file", filepath.Join(files, "env")}, "echo $A,$HOSTS_OWN,$BOTH,$FROM", "1 2,of the host,flag,file"},
		"directory":      {[]string{"-w", "/not/yet"}, "pwd", "/not/yet"},
		"user":           {[]string{"-u", "12:34"}, "id -u; id -g", "12\n34"},
		"user's name":    {[]string{"-u", "nobody"}, "id -u", "65534"},
		"host name":      {[]string{"--hostname", "berthed"}, "hostname", "berthed"},
		"read-only":      {[]string{"--read-only"}, "touch /x 2>&1; touch /dev/shm/x && echo shm", "touch: /x: Read-only file system\nshm"},
		"volume":         {[]string{"-v", dir + ":/data"}, "cat /data/file; touch /data/made", "of the host"},
		"its options":    {[]string{"-v", dir + ":/data:ro"}, "touch /data/x 2>&1", "touch: /data/x: Read-only file system"},
		"host network":   {[]string{"--network", "host"}, "readlink /proc/self/ns/net", net},
		"no network":     {[]string{"--network", "none"}, "ls /sys/class/net", "lo"},
		"bridge":         {nil, "ls /sys/class/net", "eth0\nlo"},
		"memory":         {[]string{"--memory", "64m"}, "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes", "67108864"},
		"CPUs":           {[]string{"--cpus", "0.5"}, "cd /sys/fs/cgroup; cpu=$(cat cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); set -- $cpu; echo $(($1 * 10 / $2))", "5"},
		"capabilities":   {[]string{"--cap-drop", "ALL", "--cap-add", "CHOWN"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000000001"},
		"of the command": {nil, "echo -d --rm -v", "-d --rm -v"},
	} {
		args := slices.Concat([]string{"run", "--rm"}, c.flags, []string{busybox, "/bin/sh", "-c", c.script})
		if got := try(t, "", args...); strings.TrimSuffix(got.stdout, "\n") != c.want || got.stderr != "" {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Error(err)
	}
	if got := try(t, "", "run", "--rm", "--entrypoint", "/bin/echo", busybox, "a", "b"); got.stdout != "a b\n" {
		t.Errorf("entry point: %v", got)
	}
	for range 2 { // the volume outlives its containers
		command(t, "run", "--rm", "-v", "kept:/data", busybox, "/bin/sh", "-c", "echo x >> /data/file")
	}
	if got := try(t, "", "run", "--rm", "-v", "kept:/data", busybox, "cat", "/data/file"); got.stdout != "x\nx\n" {
		t.Errorf("named volume: %v", got)
	}
}

func TestRunsThatCannotBeEndAsDockers(t *testing.T) {
	codes := map[string]int{"no-such-cmd": 127, "/no/such": 127, "/etc/passwd": 126, "directory": 126, "again": 127}
	for want, args := range map[string][]string{
		"none:1":      {"--pull", "never", "e2e.local/none:1"},
		"no-such-cmd": {busybox, "no-such-cmd"},
		"/no/such":    {busybox, "/no/such"},
		"/etc/passwd": {busybox, "/etc/passwd"},
		"directory":   {busybox, "/bin"},
		"again":       {"-d", busybox, "/again"},
		"memory":      {"--memory", "much", busybox},
		"relative":    {"-w", "relative", busybox},
		"network":     {"--network", "other", busybox},
		"port":        {"-p", "99999:1", busybox},
		"nosuchuser":  {"-u", "nosuchuser", busybox},
	} {
		name := named(t)
		got := try(t, "", append([]string{"run", "--name", name}, args...)...)
		if got.code != cmp.Or(codes[want], 125) || got.stdout != "" || !strings.HasPrefix(got.stderr, "berth: ") || !strings.Contains(got.stderr, want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: %v", want, got)
		}
		if c := listed(t, name); c.ID != "" {
			t.Errorf("%s: left is %v", want, c)
		}
	}
}
