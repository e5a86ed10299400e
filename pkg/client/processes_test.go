package client

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProcessesAreThoseInContainersCgroups(t *testing.T) {
	proc := t.TempDir()
	add := func(pid, cgroup, stat, command string) {
		t.Helper()
		dir := filepath.Join(proc, pid)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cgroup": cgroup, "stat": stat, "cmdline": command} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	const rest = " 1 1 0 0 0 0 0 0 0 0 150 50 0 0 20 0 1 0 5 1000 2 18446744073709551615 1"
	add("31", "0::/kubepods/pod1/aaaa/below\n", "31 (a) b) S 7"+rest[2:], "sh\x00-c\x00x\x00")
	add("9", "4:memory:/berth/p/bbbb\n0::/\n", "9 (zombie) Z 31"+rest[2:], "")
	add("10", "0::/system.slice\n", "10 (other) S 1"+rest[2:], "other")
	add("self", "0::/kubepods/pod1/aaaa\n", "", "")
	add("12", "0::/kubepods/pod1/aaaa\n", "gone", "")
	got, err := processes(proc, []string{"aaaa", "bbbb"})
	want := []Process{
		{PID: 9, Parent: 31, Container: "bbbb", State: "Z", CPU: 2 * time.Second, Memory: 2 * int64(os.Getpagesize()), Command: "[zombie]"},
		{PID: 31, Parent: 7, Container: "aaaa", State: "S", CPU: 2 * time.Second, Memory: 2 * int64(os.Getpagesize()), Command: "sh -c x"},
	}
	for i := range want {
		want[i].UID = uint32(os.Getuid())
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}
