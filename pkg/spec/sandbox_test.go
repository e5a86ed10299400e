package spec_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestWhatSpeaksOfAProcessOfThePodIsIgnored names the fields of a pod's
// configuration that are left aside on purpose: there is no process, and no root
// file system, that is the pod's own. What kubelet wants of a container it says
// in the container's configuration.
func TestWhatSpeaksOfAProcessOfThePodIsIgnored(t *testing.T) {
	profile := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "/profiles/log.json"}
	pod := map[string]*cri.LinuxPodSandboxConfig{
		"overhead":  {Overhead: resources(1<<20, 0)},
		"resources": {Resources: resources(1<<20, 0)},
	}
	security := map[string]*cri.LinuxSandboxSecurityContext{
		"run_as_user":                {RunAsUser: &cri.Int64Value{Value: 5}},
		"run_as_group":               {RunAsGroup: &cri.Int64Value{Value: 5}},
		"readonly_rootfs":            {ReadonlyRootfs: true},
		"supplemental_groups":        {SupplementalGroups: []int64{5}},
		"supplemental_groups_policy": {SupplementalGroupsPolicy: cri.SupplementalGroupsPolicy_Strict},
		"seccomp":                    {Seccomp: profile},
		"seccomp_profile_path":       {SeccompProfilePath: "localhost//profiles/log.json"},
		"apparmor":                   {Apparmor: profile},
	}
	for name, s := range security {
		pod["security_context."+name] = &cri.LinuxPodSandboxConfig{SecurityContext: s}
	}
	in := input()
	in.Host.AppArmor, in.Host.SELinux = true, true
	want := build(t, in)
	for name, c := range pod {
		changed := in
		changed.Pod = proto.CloneOf(in.Pod)
		proto.Merge(changed.Pod.Linux, c)
		if d := cmp.Diff(want, build(t, changed)); d != "" {
			t.Errorf("%s has an effect (-without +with):\n%s", name, d)
		}
	}
	// A field that is new in CRI belongs into one of the lists.
	known := []string{"cgroup_parent", "security_context", "sysctls"}
	for name := range pod {
		known = append(known, name)
	}
	for _, name := range []string{"namespace_options", "selinux_options", "privileged"} {
		known = append(known, "security_context."+name)
	}
	for prefix, m := range map[string]proto.Message{"": &cri.LinuxPodSandboxConfig{}, "security_context.": &cri.LinuxSandboxSecurityContext{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := prefix + string(fields.Get(i).Name()); !slices.Contains(known, name) {
				t.Errorf("nothing is said of %s", name)
			}
		}
	}
}
