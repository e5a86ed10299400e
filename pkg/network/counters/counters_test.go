package counters

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

const header = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       9       9    0    0    0     0          0         0        9       9    0    0    0     0       0          0
`

func TestInterfacesAreRead(t *testing.T) {
	got := parse([]byte(header +
		"  eth0: 1786      21    1    2    0     0          0         0     1586      19    3    4    0     0       0          0\n" +
		"eth0:1:18446744073709551615 2 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n" +
		"  cut: 1 2 3"))
	want := []Interface{
		{Name: "eth0", Received: Traffic{1786, 21, 1, 2}, Transmitted: Traffic{1586, 19, 3, 4}},
		{Name: "eth0:1", Received: Traffic{Bytes: 1<<64 - 1, Packets: 2}, Transmitted: Traffic{Bytes: 5, Packets: 6}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(header))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, i := range parse(data) {
			if i.Name == "lo" {
				t.Error("loopback")
			}
		}
	})
}

// namespace makes a network namespace with a bridge, pinned to a file.
func namespace(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("unshare", "--net="+path, "ip", "link", "add", "name", name, "type", "bridge")
	out, err := c.CombinedOutput()
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) }) // it may not have been made
	if err != nil {
		t.Fatalf("cannot make a network namespace: %v: %s", err, out)
	}
	return path
}

func TestEachNamespaceHasItsOwnInterfaces(t *testing.T) {
	testutil.Root(t)
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	a, b := namespace(t, "a"), namespace(t, "b")
	gone := filepath.Join(t.TempDir(), "gone")
	for range 3 {
		got := Read([]string{a, gone, b})
		want := map[string][]Interface{a: {{Name: "a"}}, b: {{Name: "b"}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if after, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || after != own {
		t.Errorf("the caller is in %s, was in %s, %v", after, own, err)
	}
	stray := make(chan string)
	for range 2 * runtime.GOMAXPROCS(0) { // no thread is left in another namespace
		go func() {
			ns, _ := os.Readlink("/proc/thread-self/ns/net")
			stray <- ns
		}()
		if ns := <-stray; ns != own {
			t.Errorf("a goroutine runs in %s", ns)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	testutil.Root(b)
	for _, n := range []int{1, 20} {
		var all []string
		for i := range n {
			all = append(all, namespace(b, fmt.Sprint("n", i)))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if got := Read(all); len(got) != n {
					b.Fatal(got)
				}
			}
		})
	}
}
