package libct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

func ptr[T any](v T) *T { return &v }

func (b *box) container() *container {
	b.t.Helper()
	c, err := b.e.get(b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// limitOf reads a v1 or v2 limit of the container.
func (b *box) limitOf(controller, v1, v2 string) string {
	b.t.Helper()
	c := b.container()
	path := filepath.Join(c.paths[controller], v1)
	if c.paths[controller] == "" {
		path = filepath.Join(c.paths[""], v2)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestUpdateChangesWhatIsNamedInAnyDirection(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "u1", "/bin/sleep", "1000")
	const mib = int64(1 << 20)
	spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(64 * mib), Swap: ptr(64 * mib)},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(50))},
	}
	b := create(t, e, "u1", spec).start()
	for _, limit := range []int64{256 * mib, 32 * mib, 128 * mib} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(limit), Swap: ptr(limit)}}
		if err := e.Update(t.Context(), runtime.UpdateRequest{ID: "u1", Resources: r}); err != nil {
			t.Fatalf("%d: %v", limit, err)
		}
		got := b.limitOf("memory", "memory.limit_in_bytes", "memory.max")
		expect(t, "memory", got, map[int64]string{256 * mib: "268435456", 32 * mib: "33554432", 128 * mib: "134217728"}[limit])
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(20000)), Period: ptr(uint64(100000)), Cpus: "0"}}
	if err := e.Update(t.Context(), runtime.UpdateRequest{ID: "u1", Resources: r, OOMScoreAdj: ptr(77)}); err != nil {
		t.Fatal(err)
	}
	expect(t, "cpus", b.sh("grep Cpus_allowed_list /proc/self/status | cut -f2; cat /proc/1/oom_score_adj"), "0\n77")
	expect(t, "shares stay", b.limitOf("cpu", "cpu.shares", "cpu.weight"), "512")
	expect(t, "pids stay", b.limitOf("pids", "pids.max", "pids.max"), "50")
	again, err := New(e.opts)
	if err != nil {
		t.Fatal(err)
	}
	r = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(60))}}
	if err := again.Update(t.Context(), runtime.UpdateRequest{ID: "u1", Resources: r}); err != nil {
		t.Fatal(err)
	}
	expect(t, "pids", b.limitOf("pids", "pids.max", "pids.max"), "60")
	expect(t, "memory stays", b.limitOf("memory", "memory.limit_in_bytes", "memory.max"), "134217728")
	if err := e.Update(t.Context(), runtime.UpdateRequest{ID: "none"}); !errors.Is(err, errs.NotFound) {
		t.Errorf("unknown: %v", err)
	}
}

func TestARefusedUpdateChangesNothing(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "r1", "/bin/sleep", "1000")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Swap: ptr(int64(512 << 20)), Limit: ptr(int64(256 << 20))}
	b := create(t, e, "r1", spec).start()
	state := func() string {
		return b.sh("cat /proc/1/oom_score_adj") + " " + b.limitOf("memory", "memory.limit_in_bytes", "memory.max") + " " +
			b.limitOf("cpu", "cpu.shares", "cpu.weight") + " " + b.limitOf("cpu", "cpu.cfs_quota_us", "cpu.max") + " " + b.limitOf("pids", "pids.max", "pids.max")
	}
	before := state()
	good := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(300)), Quota: ptr(int64(20000)), Period: ptr(uint64(100000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(60))},
	}
	bad := *good
	bad.CPU = &specs.LinuxCPU{Shares: ptr(uint64(300)), Quota: ptr(int64(1)), Period: ptr(uint64(100000))} // below the kernel's minimum
	for name, r := range map[string]runtime.UpdateRequest{
		"the OOM score":  {ID: "r1", Resources: good, OOMScoreAdj: ptr(5000)},
		"the quota":      {ID: "r1", Resources: &bad, OOMScoreAdj: ptr(77)},
		"the processors": {ID: "r1", Resources: &specs.LinuxResources{Memory: good.Memory, CPU: &specs.LinuxCPU{Cpus: "99999"}}, OOMScoreAdj: ptr(77)},
	} {
		if err := e.Update(t.Context(), r); err == nil {
			t.Errorf("%s: no refusal", name)
		}
		expect(t, "after "+name, state(), before)
	}
	if err := e.Update(t.Context(), runtime.UpdateRequest{ID: "r1", Resources: good, OOMScoreAdj: ptr(77)}); err != nil {
		t.Fatal(err)
	}
	expect(t, "an exec's score", b.sh("cat /proc/self/oom_score_adj"), "77")
}

func TestMemoryInUseIsNotTaken(t *testing.T) {
	e := newEngine(t)
	const mib = int64(1 << 20)
	spec := baseSpec(t, "m1", "/bin/sleep", "1000")
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(512 * mib), Swap: ptr(512 * mib)}
	b := create(t, e, "m1", spec).start()
	lower := func() error {
		r := &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(16 * mib), Swap: ptr(16 * mib)}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(300))},
		}
		return e.Update(t.Context(), runtime.UpdateRequest{ID: "m1", Resources: r, OOMScoreAdj: ptr(77)})
	}
	b.sh("head -c 40M /dev/zero >/dev/held") // a tmpfs, which cannot be reclaimed
	err := lower()
	if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "limit of 16777216 bytes") || !strings.Contains(err.Error(), "are in use") {
		t.Errorf("got %v", err)
	}
	expect(t, "memory", b.limitOf("memory", "memory.limit_in_bytes", "memory.max"), "536870912")
	expect(t, "OOM score", b.sh("cat /proc/1/oom_score_adj"), "0")
	expect(t, "shares", b.limitOf("cpu", "cpu.shares", "cpu.weight"), map[bool]string{true: "1024", false: "100"}[len(b.container().paths) > 1])
	b.sh("rm /dev/held; head -c 40M /dev/zero >/data/cached") // which can
	if err := lower(); err != nil {
		t.Error(err)
	}
	expect(t, "memory", b.limitOf("memory", "memory.limit_in_bytes", "memory.max"), "16777216")
}

func TestLimitsOfMemoryAndOfItsSumChangeTogether(t *testing.T) {
	e := newEngine(t)
	const mib = int64(1 << 20)
	b := create(t, e, "s1", baseSpec(t, "s1", "/bin/sleep", "1000"))
	if sums, _ := filepath.Glob(filepath.Join(b.container().paths["memory"], "memory.memsw.limit_in_bytes")); len(sums) == 0 {
		t.Skip("v2, whose limits do not depend on each other, or no accounting of swap")
	}
	b.start()
	for _, k := range [][2]int64{{64, 128}, {32, 32}, {256, 512}, {40, 256}, {300, 300}, {200, 400}, {300, 350}, {64, 64}, {-1, -1}, {64, 64}} {
		m := &specs.LinuxMemory{Limit: ptr(k[0] * mib), Swap: ptr(k[1] * mib)}
		if k[0] < 0 {
			m = &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}
		}
		if err := e.Update(t.Context(), runtime.UpdateRequest{ID: "s1", Resources: &specs.LinuxResources{Memory: m}}); err != nil {
			t.Errorf("%v: %v", k, err)
		}
		if k[0] > 0 {
			expect(t, "memory", b.limitOf("memory", "memory.limit_in_bytes", ""), fmt.Sprint(k[0]*mib))
			expect(t, "memory and swap", b.limitOf("memory", "memory.memsw.limit_in_bytes", ""), fmt.Sprint(k[1]*mib))
		}
	}
}

func TestOOMKillsAreCounted(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "o1", "/bin/bash", "-c", "head -c 100M /dev/zero | tail >/dev/null; exec sleep 1000")
	spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}
	b := create(t, e, "o1", spec)
	if n, err := e.OOMKills("o1"); err != nil || n != 0 {
		t.Errorf("before: %d, %v", n, err)
	}
	b.start()
	for i := 0; ; i++ {
		if n, err := e.OOMKills("o1"); err != nil {
			t.Fatal(err)
		} else if n > 0 {
			break
		}
		if _, _, err := b.run(b.process("/bin/true")); err != nil || i > 500 {
			t.Fatalf("no OOM kill seen: %v", err)
		}
	}
}

func TestDestroyEndsFrozenContainersAndTheirExecs(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "f1", baseSpec(t, "f1", "/bin/sleep", "1000")).start()
	x, err := e.Exec(t.Context(), "f1", "left", b.process("/bin/sleep", "1000"), runtime.ProcessIO{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Freeze(t.Context(), "f1", true); err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() { code <- wait(t, x.Process) }() // PID 1 does not end before it is reaped
	if err := e.Destroy(t.Context(), "f1"); err != nil {
		t.Error(err)
	}
	if code := <-code; code != 137 {
		t.Errorf("exec: exit %d", code)
	}
	if err := errors.Join(x.Kill(), x.Release()); err != nil {
		t.Errorf("after destroy: %v", err)
	}
}

func BenchmarkLifecycle(b *testing.B) {
	e := newEngine(b)
	spec := baseSpec(b, "bench", "/usr/bin/busybox", "true")
	phases := map[string]time.Duration{}
	phase := func(name string, f func() error) {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		phases[name] += time.Since(began)
	}
	for b.Loop() {
		var p runtime.Process
		phase("create", func() (err error) {
			p, err = e.Create(b.Context(), "bench", spec, runtime.ProcessIO{})
			return err
		})
		phase("start", func() error { return e.Start(b.Context(), "bench", OpenGate) })
		wait(b, p)
		phase("destroy", func() error { return e.Destroy(b.Context(), "bench") })
	}
	for name, took := range phases {
		b.ReportMetric(float64(took.Microseconds())/float64(b.N), name+"-us/op")
	}
}
