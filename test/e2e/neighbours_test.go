package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// Containers of one image are made at once (CVE-2021-21334).
func TestAnEnvironmentIsOneContainersAlone(t *testing.T) {
	name := variant(t, func(i *images.Image) { i.Config.Env = append(i.Config.Env, "OF_THE_IMAGE=1") })
	p := runPod(t)
	secret := func(n int) string { return fmt.Sprintf("SECRET_%d=%d", n, n) }
	var all [16]*ctr
	var wg sync.WaitGroup
	for n := range all {
		wg.Go(func() {
			config := sh("env | grep ^SECRET; sleep 100000")
			config.Image.Image = name
			key, value, _ := strings.Cut(secret(n), "=")
			config.Envs = []*cri.KeyValue{{Key: key, Value: []byte(value)}}
			k, err := p.try(config)
			if err != nil {
				t.Error(err)
				return
			}
			all[n] = k
			for range 4 {
				r, err := berth.Runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: k.id, Cmd: []string{"/bin/sh", "-c", "env | grep ^SECRET"}})
				if err != nil || strings.TrimSpace(string(r.Stdout)) != secret(n) {
					t.Errorf("exec: %q, %v, want %s", r.GetStdout(), err, secret(n))
				}
			}
		})
	}
	wg.Wait()
	for n, k := range all {
		if t.Failed() {
			return
		}
		eventually(t, func() error {
			if got := strings.TrimSpace(k.written()); got != secret(n) {
				return fmt.Errorf("got %q, want %s", got, secret(n))
			}
			return nil
		})
	}
}

// ours are the processes of Berth, its parents of containers and helpers too.
func ours(t *testing.T) []int {
	t.Helper()
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{berth.DaemonPID(), v.WorkerPID, v.AnchorPID}
	all, _ := children(t)
	for _, stat := range all {
		pid, _, _ := strings.Cut(stat, " ")
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, n)
	}
	return pids
}

// abstractSockets are those of the network namespace that some of the processes
// hold.
func abstractSockets(t *testing.T, pids []int) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) == 8 && f[7][0] == '@' {
			names["socket:["+f[6]+"]"] = f[7]
		}
	}
	var held []string
	for _, pid := range pids {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			to, _ := os.Readlink(l) // one that is closed by now is none
			if name, ok := names[to]; ok {
				held = append(held, name)
			}
		}
	}
	return held
}

// A pod on the host's network reaches every abstract socket there
// (CVE-2020-15257).
func TestNothingOfOursHasAnAbstractSocket(t *testing.T) {
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	})
	config := sleeper()
	config.Tty, config.Stdin = true, true
	p.start(config).exec("/bin/true")
	name := fmt.Sprintf("@berth-test-%d", os.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := abstractSockets(t, []int{os.Getpid()}); !slices.Equal(got, []string{name}) {
		t.Fatalf("the test's own: %q", got)
	}
	if got := abstractSockets(t, ours(t)); len(got) > 0 {
		t.Errorf("Berth has %q", got)
	}
}

// What a probe writes was kept whole, whatever CRI lets it answer
// (CVE-2022-1708, CVE-2022-31030).
func TestAnExecThatWritesMuchTakesLittleMemory(t *testing.T) {
	c := runPod(t).start(sleeper())
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := map[int]int64{}
	for _, pid := range []int{berth.DaemonPID(), v.WorkerPID} {
		testutil.ForgetPeak(t, pid)
		before[pid] = testutil.PeakMemory(t, pid)
	}
	const much = "head -c 700000000 /dev/zero & head -c 700000000 /dev/zero >&2; wait"
	request := &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/sh", "-c", much}, Timeout: 100}
	if r, err := berth.Runtime.ExecSync(t.Context(), request, grpc.MaxCallRecvMsgSize(16<<20)); err != nil || r.ExitCode != 0 {
		t.Errorf("%v, exit code %d", err, r.GetExitCode())
	}
	for pid, was := range before {
		now := testutil.PeakMemory(t, pid)
		t.Logf("process %d: %d → %d MiB", pid, was>>20, now>>20)
		if now > was+400<<20 { // copies of 32 MiB of output, garbage among them
			t.Errorf("process %d: %d → %d MiB", pid, was>>20, now>>20)
		}
	}
}
