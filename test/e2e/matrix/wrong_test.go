package matrix

import (
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func badContainer(what string, change func(*cri.ContainerConfig)) wrong {
	return badContainerAs(what, codes.InvalidArgument, change)
}

func badContainerAs(what string, code codes.Code, change func(*cri.ContainerConfig)) wrong {
	return bad(what, code, func(r *cri.CreateContainerRequest) { change(r.Config) })
}

func badMount(what string, m *cri.Mount) wrong {
	return badContainer(what, func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{m} })
}

func badLimits(what string, r *cri.LinuxContainerResources) wrong {
	return badContainer(what, func(c *cri.ContainerConfig) { c.Linux.Resources = r })
}

func badSecurity(what string, change func(*cri.LinuxContainerSecurityContext)) wrong {
	return badContainer(what, func(c *cri.ContainerConfig) { change(c.Linux.SecurityContext) })
}

var wrongContainers = []wrong{
	bad("nothing", codes.InvalidArgument, func(r *cri.CreateContainerRequest) { r.Config = nil }),
	badContainer("no metadata", func(c *cri.ContainerConfig) { c.Metadata = nil }),
	badContainer("no name", func(c *cri.ContainerConfig) { c.Metadata.Name = "" }),
	badContainer("no image", func(c *cri.ContainerConfig) { c.Image = nil }),
	badContainerAs("an unknown image", codes.NotFound, func(c *cri.ContainerConfig) { c.Image.Image = "matrix.local/nothing:1" }),
	badContainerAs("an image of an unknown handler", codes.NotFound, func(c *cri.ContainerConfig) { c.Image.RuntimeHandler = "youki" }),
	badContainer("a path as image", func(c *cri.ContainerConfig) { c.Image.Image = "../../etc" }),
	badContainer("a log that leaves its directory", func(c *cri.ContainerConfig) { c.LogPath = "../../c.log" }),
	badContainer("an absolute log", func(c *cri.ContainerConfig) { c.LogPath = "/tmp/c.log" }),
	badContainer("a log with zero in it", func(c *cri.ContainerConfig) { c.LogPath = "a\x00b.log" }),
	badContainer("a variable without a name", func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Value: []byte("x")}} }),
	badContainer("a variable whose name has =", func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A=B", Value: []byte("x")}} }),
	badContainer("a variable with zero in it", func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("x\x00y")}} }),
	badContainer("an unknown stop signal", func(c *cri.ContainerConfig) { c.StopSignal = 999 }),
	badContainer("a CDI device without a vendor", func(c *cri.ContainerConfig) { c.CDIDevices = []*cri.CDIDevice{{Name: "gpu0"}} }),
	badContainer("a CDI device that is not there", func(c *cri.ContainerConfig) { c.CDIDevices = []*cri.CDIDevice{{Name: "vendor.com/gpu=0"}} }),
	badContainerAs("a device that is not there", codes.NotFound, func(c *cri.ContainerConfig) {
		c.Devices = []*cri.Device{{HostPath: "/dev/nothing", Permissions: "rwm"}}
	}),
	badContainer("a device at a relative path", func(c *cri.ContainerConfig) {
		c.Devices = []*cri.Device{{HostPath: "/dev/null", ContainerPath: "dev/x", Permissions: "rwm"}}
	}),
	badContainer("a device with unknown permissions", func(c *cri.ContainerConfig) {
		c.Devices = []*cri.Device{{HostPath: "/dev/null", ContainerPath: "/dev/x", Permissions: "xyz"}}
	}),
	badContainer("Windows", func(c *cri.ContainerConfig) { c.Windows = &cri.WindowsContainerConfig{} }),
}

var wrongMounts = []wrong{
	badMount("a mount from nowhere", &cri.Mount{ContainerPath: "/m"}),
	badMount("a mount to nowhere", &cri.Mount{HostPath: "/tmp"}),
	badMount("a mount from a relative path", &cri.Mount{HostPath: "tmp", ContainerPath: "/m"}),
	badMount("a mount from zero", &cri.Mount{HostPath: "/tmp/a\x00b", ContainerPath: "/m"}),
	badMount("a mount at the root", &cri.Mount{HostPath: "/tmp", ContainerPath: "/"}),
	badMount("a mount at the root by detours", &cri.Mount{HostPath: "/tmp", ContainerPath: "/../x/.."}),
	badMount("an unknown propagation", &cri.Mount{HostPath: "/tmp", ContainerPath: "/m", Propagation: 9}),
	badContainerAs("an unknown option", codes.FailedPrecondition, func(c *cri.ContainerConfig) {
		c.Mounts = []*cri.Mount{{HostPath: "/tmp", ContainerPath: "/m", MountOptions: []string{"nodev,exec"}}}
	}),
	badMount("a recursive read-only one to write to", &cri.Mount{HostPath: "/tmp", ContainerPath: "/m", RecursiveReadOnly: true}),
	badMount("a recursive read-only one that propagates", &cri.Mount{
		HostPath: "/tmp", ContainerPath: "/m", Readonly: true, RecursiveReadOnly: true, Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL,
	}),
	badMount("an image and a path", &cri.Mount{HostPath: "/tmp", ContainerPath: "/m", Image: &cri.ImageSpec{Image: busybox}}),
	badMount("a path of an image that leaves it", &cri.Mount{ContainerPath: "/m", Image: &cri.ImageSpec{Image: busybox}, ImageSubPath: "../../etc"}),
	badMount("a path of no image", &cri.Mount{HostPath: "/tmp", ContainerPath: "/m", ImageSubPath: "etc"}),
	badMount("mapped users without groups", &cri.Mount{HostPath: "/tmp", ContainerPath: "/m", UidMappings: []*cri.IDMapping{{Length: 1}}}),
}

var wrongSecurity = []wrong{
	badSecurity("another network than the pod's", func(s *cri.LinuxContainerSecurityContext) {
		s.NamespaceOptions = &cri.NamespaceOption{Network: cri.NamespaceMode_CONTAINER, Pid: cri.NamespaceMode_CONTAINER}
	}),
	badSecurity("an unknown process namespace", func(s *cri.LinuxContainerSecurityContext) { s.NamespaceOptions.Pid = 9 }),
	badSecurity("a target without a mode", func(s *cri.LinuxContainerSecurityContext) { s.NamespaceOptions.TargetId = "x" }),
	badSecurity("a group without a user", func(s *cri.LinuxContainerSecurityContext) { s.RunAsGroup = &cri.Int64Value{Value: 1} }),
	badSecurity("a user and a name", func(s *cri.LinuxContainerSecurityContext) {
		s.RunAsUser, s.RunAsUsername = &cri.Int64Value{Value: 1}, "nobody"
	}),
	badSecurity("a negative user", func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: -1} }),
	badSecurity("a user beyond all", func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1 << 32} }),
	badSecurity("a user of two lines", func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = "nobody\nroot" }),
	badSecurity("an unknown user", func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = "nothing" }),
	badSecurity("a negative group", func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{-1} }),
	badSecurity("an unknown policy of groups", func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroupsPolicy = 9 }),
	badSecurity("an unknown capability", func(s *cri.LinuxContainerSecurityContext) {
		s.Capabilities = &cri.Capability{AddCapabilities: []string{"FLY"}}
	}),
	badSecurity("an unknown capability to drop", func(s *cri.LinuxContainerSecurityContext) {
		s.Capabilities = &cri.Capability{DropCapabilities: []string{"CAP_\n"}}
	}),
	badSecurity("a privileged one in a pod that is not", func(s *cri.LinuxContainerSecurityContext) { s.Privileged = true }),
	badSecurity("an unknown kind of seccomp profile", func(s *cri.LinuxContainerSecurityContext) { s.Seccomp = &cri.SecurityProfile{ProfileType: 9} }),
	badSecurity("a seccomp profile that is not there", func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "/nothing"}
	}),
	badSecurity("a seccomp profile at a relative path", func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "profile.json"}
	}),
	badSecurity("a seccomp profile without end", func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "/dev/zero"}
	}),
	badSecurity("an unknown kind of AppArmor profile", func(s *cri.LinuxContainerSecurityContext) { s.Apparmor = &cri.SecurityProfile{ProfileType: 9} }),
	badSecurity("a relative path to mask", func(s *cri.LinuxContainerSecurityContext) { s.MaskedPaths = []string{"proc"} }),
	badSecurity("a relative path to be read-only", func(s *cri.LinuxContainerSecurityContext) { s.ReadonlyPaths = []string{"proc"} }),
}

var wrongLimits = []wrong{
	badLimits("less memory than none", &cri.LinuxContainerResources{MemoryLimitInBytes: -7}),
	badLimits("negative shares", &cri.LinuxContainerResources{CpuShares: -1}),
	badLimits("a negative period", &cri.LinuxContainerResources{CpuPeriod: -1}),
	badLimits("a period that the kernel does not take", &cri.LinuxContainerResources{CpuPeriod: 1, CpuQuota: 1}),
	badLimits("a quota below the kernel's least", &cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 1}),
	badLimits("a processor that is not there", &cri.LinuxContainerResources{CpusetCpus: "999"}),
	badLimits("processors that are none", &cri.LinuxContainerResources{CpusetCpus: "zero"}),
	badLimits("memory nodes of two lines", &cri.LinuxContainerResources{CpusetMems: "0\n1"}),
	badLimits("less swap than memory", &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 1 << 20}),
	badContainerAs("huge pages of no size", codes.FailedPrecondition, func(c *cri.ContainerConfig) {
		c.Linux.Resources.HugepageLimits = []*cri.HugepageLimit{{PageSize: "../2MB", Limit: 1}}
	}),
	badLimits("a file outside as unified", &cri.LinuxContainerResources{Unified: map[string]string{"../memory.max": "1"}}),
}
