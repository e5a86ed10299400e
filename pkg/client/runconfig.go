package client

import (
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client/resource"
	"github.com/berth-run/berth/pkg/errs"
)

// Network is how a pod of `berth run` reaches the network.
type Network string

// The networks, as Docker names them.
const (
	NetworkBridge Network = "bridge"
	NetworkHost   Network = "host"
	NetworkNone   Network = "none"
)

var networkModes = map[Network]runtimeapi.NamespaceMode{
	NetworkBridge: runtimeapi.NamespaceMode_POD,
	NetworkHost:   runtimeapi.NamespaceMode_NODE,
	// CRI leaves this value without a meaning for networks; Berth makes it a
	// namespace with a loopback interface and nothing else.
	NetworkNone: runtimeapi.NamespaceMode_CONTAINER,
}

// RunOptions is what `berth run` may be told. The zero value of a field means
// the image's or Berth's default.
type RunOptions struct {
	// Name becomes that of the pod and of its one container.
	Name       string
	Image      string
	Entrypoint string
	// NoEntrypoint leaves out the image's too: Command is all that is run.
	NoEntrypoint bool
	Command      []string
	Env          []*runtimeapi.KeyValue
	Ports        []*runtimeapi.PortMapping
	Volumes      []Volume
	Devices      resource.Devices
	Labels       map[string]string
	User         string
	WorkDir      string
	Hostname     string
	Network      Network
	// Memory is in bytes, CPUQuota in microseconds of each CPUPeriod.
	Memory, CPUQuota, CPUPeriod     int64
	ReadOnly, Privileged, TTY, Open bool // Open keeps stdin open
	CapAdd, CapDrop                 []string
	// Remove lets the daemon remove the pod once the container has ended.
	Remove bool
}

// containerName is Docker's rule, within the length of a host name.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// Check tells what no daemon could do.
func (o *RunOptions) Check() error {
	if !containerName.MatchString(o.Name) {
		return fail(errs.Invalid, "name %q: use up to 63 letters, digits, '_', '.' and '-', the first a letter or digit", o.Name)
	}
	if _, ok := networkModes[o.Network]; !ok {
		return fail(errs.Invalid, "network %q: choose bridge, host or none", o.Network)
	}
	if len(o.Ports) > 0 && o.Network != NetworkBridge {
		return fail(errs.Invalid, "ports cannot be published with network %s: leave out -p, or use the bridge", o.Network)
	}
	if o.WorkDir != "" && !path.IsAbs(o.WorkDir) {
		return fail(errs.Invalid, "working directory %q: it is one in the container, give an absolute path", o.WorkDir)
	}
	if o.Hostname != "" && o.Network == NetworkHost {
		return fail(errs.Invalid, "a host name cannot be given with network host: the host's name stays")
	}
	if o.NoEntrypoint && len(o.Command) == 0 {
		return fail(errs.Invalid, "an empty entry point leaves nothing to run: name a command after the image")
	}
	if o.Image == "" {
		return fail(errs.Invalid, "no image is named")
	}
	return nil
}

// place is what the daemon and chance add to the options.
type place struct {
	uid, logs, imageID string
	// volumes maps named volumes to their directories, images those of volumes to
	// their ids.
	volumes, images map[string]string
}

// configs turns the options into CRI's terms.
func (o *RunOptions) configs(p place) (*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig, error) {
	if err := o.Check(); err != nil {
		return nil, nil, err
	}
	ctr, err := o.container(p)
	if err != nil {
		return nil, nil, err
	}
	ns := ctr.Linux.SecurityContext.NamespaceOptions
	pod := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: o.Name, Namespace: "default", Uid: p.uid},
		Hostname:     o.hostname(),
		LogDirectory: p.logs,
		PortMappings: o.Ports,
		Labels:       o.labels(p),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: ns,
				Privileged:       o.Privileged,
				Seccomp:          o.seccomp(),
			},
		},
	}
	return pod, ctr, nil
}

func (o *RunOptions) container(p place) (*runtimeapi.ContainerConfig, error) {
	security, err := o.security()
	if err != nil {
		return nil, err
	}
	c := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: o.Name},
		Image:       &runtimeapi.ImageSpec{Image: p.imageID, UserSpecifiedImage: o.Image},
		Args:        o.Command,
		WorkingDir:  o.WorkDir,
		Envs:        o.Env,
		Mounts:      o.mounts(p),
		Devices:     o.Devices.Nodes,
		CDIDevices:  o.Devices.CDI,
		Labels:      o.labels(p),
		Annotations: map[string]string{},
		LogPath:     filepath.Base(o.Name) + ".log",
		Stdin:       o.Open,
		StdinOnce:   o.Open && !o.TTY,
		Tty:         o.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{
				MemoryLimitInBytes: o.Memory, CpuQuota: o.CPUQuota, CpuPeriod: o.CPUPeriod,
			},
			SecurityContext: security,
		},
	}
	switch {
	case o.NoEntrypoint:
		c.Command, c.Args = o.Command, nil
	case o.Entrypoint != "":
		c.Command = []string{o.Entrypoint}
	}
	if command := slices.Concat(c.Command, c.Args); len(command) > 0 {
		c.Annotations[apiv1.AnnotationCommand] = strings.Join(command, " ")
	}
	if o.TTY {
		c.Annotations[apiv1.AnnotationTTY] = "true"
	}
	if len(o.Ports) > 0 {
		c.Annotations[apiv1.AnnotationPorts] = FormatPorts(o.Ports)
	}
	return c, nil
}

func (o *RunOptions) labels(p place) map[string]string {
	labels := maps.Clone(o.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[apiv1.LabelPodName] = o.Name
	labels[apiv1.LabelPodNamespace] = "default"
	labels[apiv1.LabelPodUID] = p.uid
	labels[apiv1.LabelContainerName] = o.Name
	labels[apiv1.LabelOwner] = apiv1.OwnerRun
	if o.Remove {
		labels[apiv1.LabelRemove] = "true"
	}
	return labels
}

func (o *RunOptions) mounts(p place) []*runtimeapi.Mount {
	var mounts []*runtimeapi.Mount
	for _, v := range o.Volumes {
		source := v.HostPath
		switch {
		case v.Name != "":
			source = p.volumes[v.Name]
		case v.Image != "":
			source = p.images[v.Image]
		}
		mounts = append(mounts, v.Mount(source))
	}
	return mounts
}

func (o *RunOptions) security() (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:     o.Privileged,
		ReadonlyRootfs: o.ReadOnly,
		NamespaceOptions: &runtimeapi.NamespaceOption{
			Network: networkModes[o.Network],
			Pid:     runtimeapi.NamespaceMode_CONTAINER,
			Ipc:     runtimeapi.NamespaceMode_POD,
		},
		Capabilities: &runtimeapi.Capability{AddCapabilities: capabilities(o.CapAdd), DropCapabilities: capabilities(o.CapDrop)},
		Seccomp:      o.seccomp(),
	}
	if !o.Privileged {
		sc.MaskedPaths, sc.ReadonlyPaths = apiv1.MaskedPaths(), apiv1.ReadonlyPaths()
	}
	return sc, setUser(sc, o.User)
}

// capabilities writes names as CRI has them: without CAP_, in capitals.
func capabilities(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, strings.TrimPrefix(strings.ToUpper(n), "CAP_"))
	}
	return all
}

func (o *RunOptions) seccomp() *runtimeapi.SecurityProfile {
	if o.Privileged {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

var notInHostname = regexp.MustCompile(`[^a-zA-Z0-9-]+`)

// hostname is the name, made fit to be one. With the host's network the host's
// name stays.
func (o *RunOptions) hostname() string {
	if o.Hostname != "" || o.Network == NetworkHost {
		return o.Hostname
	}
	return strings.Trim(notInHostname.ReplaceAllString(o.Name, "-"), "-")
}
