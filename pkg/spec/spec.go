// Package spec turns CRI's pod and container configurations, an image's
// configuration and facts about the host into an OCI runtime specification.
//
// Everything is a pure function of its Input: nothing is opened or made but
// through Input.System, and golden tests (testdata) hold the result. What an
// image says (USER, ENV, WORKDIR, VOLUME, STOPSIGNAL, its passwd and group
// files) is hostile and checked here; what kubelet says is policy and obeyed,
// within what CRI's comments demand. CDI devices are package cdi's, which adds
// to the result.
//
// Environment values are bytes and need not be UTF-8, which JSON strings
// cannot carry: whoever sends or stores a result takes RawEnv beside it.
package spec

import (
	"fmt"
	"slices"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/spec/check"
)

// Input is all that decides the specification of one container.
type Input struct {
	ID, PodID string
	Pod       *cri.PodSandboxConfig
	Container *cri.ContainerConfig
	Image     ispec.ImageConfig
	// RootFS is the mounted root file system, absolute.
	RootFS string
	User   User
	// Namespaces are pinned paths to join. One that is absent here is the
	// host's or the container's own, as its mode says.
	Namespaces map[specs.LinuxNamespaceType]string
	// TargetPIDNS is the PID namespace to join in mode TARGET.
	TargetPIDNS string
	// Shm, ResolvConf, Hosts and Hostname are host paths to mount where the
	// configuration mounts nothing there; empty ones are left out.
	Shm, ResolvConf, Hosts, Hostname string
	// UTSName is what uname says in the container, for its HOSTNAME.
	UTSName string
	// Volumes are prepared directories for the image's VOLUMEs.
	Volumes []Volume
	// CgroupParent, where set, is used instead of the pod's, in CRI's form.
	CgroupParent string
	// Sources replaces the host paths of mounts by resolved ones
	// (host.EnsureSource); a path that is absent is taken as it is.
	Sources map[string]string
	// ImageMounts are the host paths of mounted images, by the place of the mount
	// in Container.
	ImageMounts map[int]string
	Host        host.Facts
	// System looks at paths of the host; nil is the real host.
	System  System
	Options Options
}

// System is what the specification needs to know of single host paths.
type System interface {
	// Devices returns the device nodes at, or below, a path.
	Devices(path string) ([]specs.LinuxDevice, error)
	// Propagation returns that of the mount which the path lies on.
	Propagation(path string) (host.Propagation, error)
	// ReadFile reads a whole file of at most limit bytes.
	ReadFile(path string, limit int64) ([]byte, error)
}

// Options are the node's settings; the zero value works.
type Options struct {
	// CgroupDriver is "cgroupfs" (also when empty) or "systemd".
	CgroupDriver string
	// Capabilities replace DefaultCapabilities where not nil.
	Capabilities []string
	// SeccompUnset is the profile of containers whose configuration names
	// none: "unconfined" (also when empty), "runtime/default" or a path.
	SeccompUnset string
	// AppArmorProfile is the loaded profile that RuntimeDefault stands for;
	// empty: none.
	AppArmorProfile string
	// Rlimits for every container; those not named are inherited.
	Rlimits []specs.POSIXRlimit
	// PidsLimit for every container; 0: none.
	PidsLimit int64
	// OOMScoreAdjMin raises lower values; with 0 only the host's own bound
	// holds.
	OOMScoreAdjMin int
	// Annotations are the keys (a final * matches any ending) of pod and
	// container annotations that reach the runtime.
	Annotations []string
	// PrivilegedWithoutHostDevices leaves the host's devices out of privileged
	// containers.
	PrivilegedWithoutHostDevices bool
}

// Limit adds a resource limit by its short name, such as nofile.
func (o *Options) Limit(name string, soft, hard uint64) {
	o.Rlimits = append(o.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard})
}

// Volume is a prepared host directory for one VOLUME of the image.
type Volume struct {
	ContainerPath string
	HostPath      string
}

// Container returns the specification of a container.
func Container(in Input) (*specs.Spec, error) {
	if in.System == nil {
		in.System = host.System{}
	}
	b := builder{
		Input:    in,
		security: in.Container.GetLinux().GetSecurityContext(),
		modes:    NamespaceModes(in.Pod, in.Container),
		spec: &specs.Spec{
			Version: specs.Version,
			Root:    &specs.Root{Path: in.RootFS, Readonly: in.Container.GetLinux().GetSecurityContext().GetReadonlyRootfs()},
			Linux:   &specs.Linux{},
		},
	}
	for _, step := range []func() error{
		b.check, b.process, b.capabilities, b.namespaces, b.mounts,
		b.resources, b.devices, b.paths, b.mandatoryAccess, b.seccomp, b.annotations,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.spec, nil
}

// builder fills spec step by step; each step lives in the file of its name.
type builder struct {
	Input
	security *cri.LinuxContainerSecurityContext
	modes    Modes
	spec     *specs.Spec
}

func (b *builder) privileged() bool { return b.security.GetPrivileged() }

// check refuses what no later step looks at.
func (b *builder) check() error {
	if b.Pod == nil || b.Container == nil {
		return fmt.Errorf("pod or container configuration is missing: %w", errs.Invalid)
	}
	if b.privileged() && !b.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return fmt.Errorf("privileged container in a pod that is not privileged: %w", errs.Invalid)
	}
	return nil
}

// paths sets what of /proc and /sys is hidden or cannot be written. The lists
// are kubelet's: empty ones mean procMount Unmasked.
func (b *builder) paths() error {
	for _, p := range slices.Concat(b.security.GetMaskedPaths(), b.security.GetReadonlyPaths()) {
		if err := check.Path(p); err != nil {
			return fmt.Errorf("masked or read-only path: %w", err)
		}
	}
	if !b.privileged() {
		b.spec.Linux.MaskedPaths, b.spec.Linux.ReadonlyPaths = b.security.GetMaskedPaths(), b.security.GetReadonlyPaths()
	}
	return nil
}
