package nri

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
)

func ptr[T any](v T) *T { return &v }

// base is a specification that adjustments change.
func base() *specs.Spec {
	return &specs.Spec{
		Annotations: map[string]string{"old": "1", "drop": "1"},
		Process: &specs.Process{
			Args: []string{"/app"}, Env: []string{"A=1", "B=\xff", "C=3"},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
		},
		Mounts: []specs.Mount{{Destination: "/proc"}, {Destination: "/data", Source: "/old"}, {Destination: "/dev/shm"}},
		Linux: &specs.Linux{
			CgroupsPath: "/pod/c",
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace, Path: "/ipc"}},
			Devices:     []specs.LinuxDevice{{Path: "/dev/a"}, {Path: "/dev/b"}},
			Sysctl:      map[string]string{"kernel.a": "1"},
			Resources:   &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr[uint64](512), Cpus: "0-3"}, Memory: &specs.LinuxMemory{Limit: ptr[int64](1 << 30), Swap: ptr[int64](1 << 30)}},
		},
	}
}

var facts = host.Facts{CgroupV2: true, Swap: true, OOMScoreAdjMin: -500, Controllers: []string{"cpu", "cpuset", "memory", "hugetlb"}, HugepageSizes: []string{"2MB"}}

func TestAdjustmentsReachTheSpecification(t *testing.T) {
	a := &api.ContainerAdjustment{}
	a.AddAnnotation("new", "2")
	a.RemoveAnnotation("drop")
	a.RemoveAnnotation("old")
	a.AddAnnotation("old", "3")
	a.AddEnv("A", "10")
	a.RemoveEnv("C")
	a.AddEnv("D", "4")
	a.SetArgs([]string{"/wrapper", "/app"})
	a.AddRlimit("RLIMIT_NOFILE", 20, 10)
	a.AddRlimit("RLIMIT_CORE", 0, 0)
	a.SetLinuxOomScoreAdj(ptr(-900))
	a.SetLinuxIOPriority(&api.LinuxIOPriority{Class: api.IOPrioClass_IOPRIO_CLASS_BE, Priority: 5})
	a.SetLinuxScheduler(&api.LinuxScheduler{Policy: api.LinuxSchedulerPolicy_SCHED_BATCH, Nice: 3})
	a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/hook", Args: []string{"hook", "x"}}}, Poststop: []*api.Hook{{Path: "/stop"}}})
	a.RemoveDevice("/dev/a")
	a.AddDevice(&api.LinuxDevice{Path: "/dev/c", Type: "c", Major: 1, Minor: 7})
	a.SetLinuxCgroupsPath("/elsewhere")
	a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "ipc", Path: "/other"})
	a.RemoveNamespace(&api.LinuxNamespace{Type: "pid"})
	a.SetLinuxSysctl("net.a", "2")
	a.SetLinuxSysctl("-kernel.a", "")
	a.AddLinuxNetDevice("eth5", &api.LinuxNetDevice{Name: "gpu0"})
	a.SetLinuxSeccompPolicy(&api.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", DefaultErrno: api.UInt32(uint32(38)), Architectures: []string{"SCMP_ARCH_X86_64"}, Syscalls: []*api.LinuxSyscall{{Names: []string{"read"}, Action: "SCMP_ACT_ALLOW"}}})
	a.SetLinuxMemoryPolicy(api.MpolMode_MPOL_BIND, "0", api.MpolFlag_MPOL_F_STATIC_NODES)
	a.SetLinuxRDTClosID("gold")

	got := base()
	limits, err := adjust(got, a, &cri.LinuxContainerResources{}, facts)
	if err != nil || limits.OomScoreAdj != -500 {
		t.Fatalf("limits %v, %v", limits, err)
	}
	want := base()
	want.Annotations = map[string]string{"old": "3", "new": "2"}
	want.Process = &specs.Process{
		Args: []string{"/wrapper", "/app"}, Env: []string{"A=10", "B=\xff", "D=4"}, OOMScoreAdj: ptr(-500),
		Rlimits:    []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20}, {Type: "RLIMIT_CORE"}},
		IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 5},
		Scheduler:  &specs.Scheduler{Policy: specs.SchedBatch, Nice: 3},
	}
	want.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/hook", Args: []string{"hook", "x"}}}, Poststop: []specs.Hook{{Path: "/stop"}}}
	l := want.Linux
	l.CgroupsPath, l.Sysctl = "/elsewhere", map[string]string{"net.a": "2"}
	l.Namespaces = []specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: "/other"}}
	l.Devices = []specs.LinuxDevice{{Path: "/dev/b"}, {Path: "/dev/c", Type: "c", Major: 1, Minor: 7}}
	l.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: ptr[int64](1), Minor: ptr[int64](7), Access: "rw"}}
	l.NetDevices = map[string]specs.LinuxNetDevice{"eth5": {Name: "gpu0"}}
	l.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: ptr[uint](38), Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
	l.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	l.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestOuterMountsComeBeforeThoseInThem(t *testing.T) {
	a := &api.ContainerAdjustment{}
	a.RemoveMount("/proc")
	a.AddMount(&api.Mount{Destination: "/data/in", Type: "bind", Source: "/b", Options: []string{"rbind", "ro", "relabel"}})
	a.AddMount(&api.Mount{Destination: "/data", Type: "bind", Source: "/a", Options: []string{"rbind"}})
	a.AddMount(&api.Mount{Destination: "/deep/er/mount", Type: "tmpfs", Source: "tmpfs"})
	got := base()
	if _, err := adjust(got, a, nil, facts); err != nil {
		t.Fatal(err)
	}
	want := []specs.Mount{
		{Destination: "/data", Type: "bind", Source: "/a", Options: []string{"rbind"}},
		{Destination: "/dev/shm"},
		{Destination: "/data/in", Type: "bind", Source: "/b", Options: []string{"rbind", "ro"}},
		{Destination: "/deep/er/mount", Type: "tmpfs", Source: "tmpfs"},
	}
	if diff := cmp.Diff(want, got.Mounts); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAdjustedLimitsAreInForce(t *testing.T) {
	a := &api.ContainerAdjustment{}
	a.SetLinuxCPUSetCPUs("1")
	a.SetLinuxCPUSetMems("0")
	a.SetLinuxCPUQuota(50000)
	a.SetLinuxMemoryLimit(2 << 30)
	a.AddLinuxHugepageLimit("2MB", 4<<20)
	a.AddLinuxUnified("memory.high", "1000")
	a.SetLinuxPidLimits(100)
	a.Linux.Resources.Memory.Reservation = api.Int64(1 << 20)

	got := base()
	limits, err := adjust(got, a, &cri.LinuxContainerResources{CpuShares: 512, CpusetCpus: "0-3", MemoryLimitInBytes: 1 << 30}, facts)
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.LinuxResources{
		CPU:            &specs.LinuxCPU{Shares: ptr[uint64](512), Quota: ptr[int64](50000), Cpus: "1", Mems: "0"},
		Memory:         &specs.LinuxMemory{Limit: ptr[int64](2 << 30), Swap: ptr[int64](2 << 30), Reservation: ptr[int64](1 << 20)},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Unified:        map[string]string{"memory.high": "1000"}, Pids: &specs.LinuxPids{Limit: ptr[int64](100)},
	}
	if diff := cmp.Diff(want, got.Linux.Resources); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if limits.CpuShares != 512 || limits.CpuQuota != 50000 || limits.CpusetCpus != "1" || limits.MemoryLimitInBytes != 2<<30 || len(limits.HugepageLimits) != 1 {
		t.Errorf("in force: %v", limits)
	}
}

func TestNoAdjustmentChangesNothing(t *testing.T) {
	for _, a := range []*api.ContainerAdjustment{nil, {}, {Linux: &api.LinuxContainerAdjustment{Resources: &api.LinuxResources{Cpu: &api.LinuxCPU{}, Memory: &api.LinuxMemory{}}}}} {
		got, old := base(), &cri.LinuxContainerResources{CpuShares: 512}
		limits, err := adjust(got, a, old, facts)
		if err != nil || limits.CpuShares != 512 {
			t.Fatalf("limits %v, %v", limits, err)
		}
		if diff := cmp.Diff(base(), got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestWhatCannotBeAppliedIsRefused(t *testing.T) {
	for name, f := range map[string]func(*api.ContainerAdjustment){
		"annotation org":  func(a *api.ContainerAdjustment) { a.AddAnnotation("org.systemd.property.X", "1") },
		"block I/O":       func(a *api.ContainerAdjustment) { a.SetLinuxBlockIOClass("gold") },
		"kernel memory":   func(a *api.ContainerAdjustment) { a.SetLinuxMemoryKernel(1) },
		"namespace":       func(a *api.ContainerAdjustment) { a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "pids"}) },
		`mount at "/"`:    func(a *api.ContainerAdjustment) { a.AddMount(&api.Mount{Destination: "/", Source: "/x"}) },
		`mount at "data"`: func(a *api.ContainerAdjustment) { a.AddMount(&api.Mount{Destination: "data", Source: "/x"}) },
		"relabelling": func(a *api.ContainerAdjustment) {
			a.AddMount(&api.Mount{Destination: "/x", Source: "/x", Options: []string{"relabel"}})
		},
		"propagate": func(a *api.ContainerAdjustment) {
			a.AddMount(&api.Mount{Destination: "/x", Source: "/proc/self", Options: []string{"rbind", "rshared"}})
		},
		"huge pages": func(a *api.ContainerAdjustment) { a.AddLinuxHugepageLimit("1GB", 1<<30) },
		"cpu":        func(a *api.ContainerAdjustment) { a.SetLinuxCPUShares(1 << 63) },
	} {
		a, sp := &api.ContainerAdjustment{}, base()
		sp.Process.SelinuxLabel = "x"
		f(a)
		_, err := adjust(sp, a, nil, facts)
		if !errors.Is(err, errs.Unsupported) && !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
