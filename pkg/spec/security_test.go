package spec_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

func TestCapabilities(t *testing.T) {
	all := facts().Capabilities
	without := func(drop string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == drop })
	}
	defaults := func() []string {
		return slices.DeleteFunc(slices.Clone(all), func(c string) bool { return !slices.Contains(spec.DefaultCapabilities(), c) })
	}
	for _, c := range []struct {
		name          string
		caps          *cri.Capability
		want, ambient []string
	}{
		{"default", nil, defaults(), nil},
		{"add all", &cri.Capability{AddCapabilities: []string{"ALL"}}, all, nil},
		{"add all, drop one", &cri.Capability{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"SYS_ADMIN"}}, without("CAP_SYS_ADMIN"), nil},
		{"drop all", &cri.Capability{DropCapabilities: []string{"all"}}, nil, nil},
		{"drop all, add two", &cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CAP_CHOWN", "kill"}}, []string{"CAP_CHOWN", "CAP_KILL"}, nil},
		{"drop wins over add", &cri.Capability{DropCapabilities: []string{"ALL", "KILL"}, AddCapabilities: []string{"KILL"}}, nil, nil},
		{"ambient", &cri.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}, []string{"CAP_NET_ADMIN"}, []string{"CAP_NET_ADMIN"}},
		{"dropped ambient", &cri.Capability{DropCapabilities: []string{"ALL", "NET_ADMIN"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}, nil, nil},
		{"not held", &cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"SYS_RESOURCE"}}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := input()
			security(in).Capabilities = c.caps
			got := build(t, in).Process.Capabilities
			for _, set := range [][]string{got.Bounding, got.Effective, got.Permitted} {
				if !slices.Equal(set, c.want) {
					t.Error(cmp.Diff(c.want, set))
				}
			}
			for _, set := range [][]string{got.Inheritable, got.Ambient} {
				if !slices.Equal(set, c.ambient) {
					t.Errorf("ambient %v", set)
				}
			}
		})
	}
	in := input()
	security(in).Capabilities = &cri.Capability{AddCapabilities: []string{"SYS_EVERYTHING"}}
	refused(t, in, errs.Invalid)
}

func privileged() spec.Input {
	in := input()
	in.Pod.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{Privileged: true}
	security(in).Privileged = true
	return in
}

func TestPrivilegedLiftsConfinement(t *testing.T) {
	in := privileged()
	in.Host.AppArmor = true
	in.Options.AppArmorProfile = "berth-default"
	security(in).MaskedPaths = []string{"/proc/kcore"}
	security(in).Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	s := build(t, in)
	if s.Linux.Seccomp != nil || s.Linux.MaskedPaths != nil || s.Process.ApparmorProfile != "" {
		t.Errorf("seccomp %v, masked %v, AppArmor %q", s.Linux.Seccomp, s.Linux.MaskedPaths, s.Process.ApparmorProfile)
	}
	if len(s.Linux.Devices) != 3 || !s.Linux.Resources.Devices[0].Allow {
		t.Errorf("devices %v, rules %v", s.Linux.Devices, s.Linux.Resources.Devices)
	}
	if !slices.Contains(mountAt(t, s, "/sys").Options, "rw") {
		t.Error("/sys is not writable")
	}
	in.Options.PrivilegedWithoutHostDevices = true
	if s := build(t, in); len(s.Linux.Devices) != 0 {
		t.Errorf("devices %v", s.Linux.Devices)
	}
}

func TestPathsToHideAreAbsolute(t *testing.T) {
	for _, p := range []string{"proc/kcore", "", "/a\x00b", "/proc/self/fd/3", "/proc/./thread-self/fd", "/" + strings.Repeat("x", 256), strings.Repeat("/x", 2048)} {
		masked, readonly := input(), input()
		security(masked).MaskedPaths = []string{p}
		refused(t, masked, errs.Invalid)
		security(readonly).ReadonlyPaths = []string{p}
		refused(t, readonly, errs.Invalid)
	}
}

func TestPrivilegedNeedsAPrivilegedPod(t *testing.T) {
	in := input()
	security(in).Privileged = true
	refused(t, in, errs.Invalid)
}

func TestSeccompProfiles(t *testing.T) {
	const localhost = cri.SecurityProfile_Localhost
	for _, c := range []struct {
		name  string
		field *cri.SecurityProfile
		old   string
		unset string
		want  string // default action; "" for none
	}{
		{"nothing", nil, "", "", ""},
		{"node's default", nil, "", "runtime/default", "SCMP_ACT_ERRNO"},
		{"runtime default", &cri.SecurityProfile{}, "", "", "SCMP_ACT_ERRNO"},
		{"unconfined wins over the node's", &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, "", "runtime/default", ""},
		{"file", &cri.SecurityProfile{ProfileType: localhost, LocalhostRef: "/profiles/log.json"}, "", "", "SCMP_ACT_LOG"},
		{"old field", nil, "localhost//profiles/log.json", "", "SCMP_ACT_LOG"},
		{"old default", nil, "docker/default", "", "SCMP_ACT_ERRNO"},
		{"new field wins", &cri.SecurityProfile{ProfileType: localhost, LocalhostRef: "/profiles/log.json"}, "unconfined", "", "SCMP_ACT_LOG"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := input()
			security(in).Seccomp = c.field
			security(in).SeccompProfilePath = c.old
			in.Options.SeccompUnset = c.unset
			got := ""
			if s := build(t, in).Linux.Seccomp; s != nil {
				got = string(s.DefaultAction)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for name, p := range map[string]*cri.SecurityProfile{
		"relative":        {ProfileType: localhost, LocalhostRef: "log.json"},
		"broken":          {ProfileType: localhost, LocalhostRef: "/profiles/broken.json"},
		"path of default": {LocalhostRef: "/profiles/log.json"},
		"unknown type":    {ProfileType: 9},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			security(in).Seccomp = p
			refused(t, in, errs.Invalid)
		})
	}
	in := input()
	in.Host.Seccomp = false
	security(in).Seccomp = &cri.SecurityProfile{}
	refused(t, in, errs.Unsupported)
}

func TestAProfileNamesTheAgentOfItsSystemCallsWhole(t *testing.T) {
	profile := func(listener string) spec.Input {
		in := input()
		text := `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]` + listener + `}`
		security(in).Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "/profiles/inline/" + text}
		return in
	}
	in := profile(`,"listenerPath":"/run/agent.sock","listenerMetadata":"m"`)
	got := build(t, in).Linux.Seccomp
	if got.ListenerPath != "/run/agent.sock" || got.ListenerMetadata != "m" || len(got.Flags) != 1 || got.Syscalls[0].Action != "SCMP_ACT_NOTIFY" {
		t.Errorf("got %+v", got)
	}
	for _, listener := range []string{`,"listenerPath":"agent.sock"`, `,"listenerMetadata":"m"`} {
		refused(t, profile(listener), errs.Invalid)
	}
}

// Whoever makes a pod's annotations, or an image, must not choose a socket of the node
// that berth-runtime talks to, or a file that crun writes or loads.
func TestAnnotationsAndImagesNameNoSeccompAgent(t *testing.T) {
	in := input()
	keys := []string{"run.oci.seccomp.receiver", "run.oci.seccomp.plugins", "run.oci.hooks.stdout", "run.oci.hooks.stderr"}
	in.Pod.Annotations, in.Container.Annotations, in.Image.Labels = map[string]string{}, map[string]string{}, map[string]string{}
	for _, key := range keys {
		in.Pod.Annotations[key], in.Container.Annotations[key], in.Image.Labels[key] = "/x", "/x", "/x"
	}
	in.Options.Annotations = []string{"*", "run.oci.*"}
	security(in).Seccomp = &cri.SecurityProfile{}
	s := build(t, in)
	for _, key := range keys {
		if value, ok := s.Annotations[key]; ok {
			t.Errorf("%s: %s", key, value)
		}
	}
	if s.Linux.Seccomp.ListenerPath != "" {
		t.Errorf("agent %s", s.Linux.Seccomp.ListenerPath)
	}
}

func TestSeccompDefaultFollowsCapabilities(t *testing.T) {
	allows := func(caps *cri.Capability) bool {
		in := input()
		security(in).Capabilities = caps
		security(in).Seccomp = &cri.SecurityProfile{}
		for _, rule := range build(t, in).Linux.Seccomp.Syscalls {
			if slices.Contains(rule.Names, "mount") && rule.Action == "SCMP_ACT_ALLOW" {
				return true
			}
		}
		return false
	}
	if allows(nil) || !allows(&cri.Capability{AddCapabilities: []string{"SYS_ADMIN"}}) {
		t.Error("mount(2) must be allowed with CAP_SYS_ADMIN alone")
	}
}

func TestAppArmor(t *testing.T) {
	named := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "localhost/mine"}
	in := input()
	security(in).Apparmor = named
	refused(t, in, errs.Unsupported)

	in.Host.AppArmor = true
	in.Options.AppArmorProfile = "berth-default"
	for _, c := range []struct {
		field *cri.SecurityProfile
		old   string
		want  string
	}{
		{named, "", "mine"},
		{nil, "", "berth-default"},
		{nil, "localhost/old", "old"},
		{nil, "unconfined", ""},
		{&cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, "localhost/old", ""},
	} {
		security(in).Apparmor, security(in).ApparmorProfile = c.field, c.old
		if got := build(t, in).Process.ApparmorProfile; got != c.want {
			t.Errorf("%v, %q: got %q, want %q", c.field, c.old, got, c.want)
		}
	}
}

func TestSELinuxLabels(t *testing.T) {
	in := input()
	security(in).SelinuxOptions = &cri.SELinuxOption{Type: "mine_t", Level: "s0:c1,c2"}
	if got := build(t, in).Process.SelinuxLabel; got != "" {
		t.Errorf("label %q without SELinux", got)
	}
	in.Host.SELinux = true
	s := build(t, in)
	if s.Process.SelinuxLabel != "system_u:system_r:mine_t:s0:c1,c2" || s.Linux.MountLabel != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("%q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel)
	}
	in.Pod.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{SelinuxOptions: &cri.SELinuxOption{User: "pod_u", Type: "pod_t"}}
	if got := build(t, in).Process.SelinuxLabel; got != "system_u:system_r:mine_t:s0:c1,c2" {
		t.Errorf("%q with options of the pod too", got)
	}
	security(in).SelinuxOptions.Type = "a:b"
	refused(t, in, errs.Invalid)
	security(in).SelinuxOptions = nil
	s = build(t, in)
	if s.Process.SelinuxLabel != "pod_u:system_r:pod_t:s0" || s.Linux.MountLabel != "pod_u:object_r:container_file_t:s0" {
		t.Errorf("the pod's: %q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel)
	}
}

func TestAnnotationsPassByPolicyAlone(t *testing.T) {
	in := input()
	in.Pod.Annotations = map[string]string{"example.com/a": "pod", "example.com/b": "pod", "other": "x", "org.systemd.property.ExecStart": "x"}
	in.Container.Annotations = map[string]string{"example.com/a": "container"}
	in.Image.Labels = map[string]string{"example.com/c": "image"}
	in.Options.Annotations = []string{"example.com/*", "org.systemd.property.*", "oth"}
	want := map[string]string{
		"example.com/a": "container", "example.com/b": "pod",
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p1",
	}
	if d := cmp.Diff(want, build(t, in).Annotations); d != "" {
		t.Error(d)
	}
}
