package pod

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCgroupsAreFoundWithBothDrivers(t *testing.T) {
	const uid = "11a2-33b4"
	for name, c := range map[string]struct {
		parent, driver  string
		want, container string
		own             bool
	}{
		"ours":                  {"", "cgroupfs", "/berth/id", "/berth/id/c", true},
		"ours, systemd":         {"", "systemd", "/berth.slice/berth-id.slice", "/berth.slice/berth-id.slice/berth-c.scope", true},
		"kubelet's":             {"/kubepods/burstable/pod" + uid, "cgroupfs", "/kubepods/burstable/pod11a2-33b4", "/kubepods/burstable/pod11a2-33b4/c", true},
		"kubelet's, systemd":    {"kubepods-pod11a2_33b4.slice", "systemd", "/kubepods.slice/kubepods-pod11a2_33b4.slice", "/kubepods.slice/kubepods-pod11a2_33b4.slice/berth-c.scope", true},
		"a path, systemd":       {"/kubepods.slice/kubepods-pod11a2_33b4.slice", "systemd", "/kubepods.slice/kubepods-pod11a2_33b4.slice", "/kubepods.slice/kubepods-pod11a2_33b4.slice/berth-c.scope", true},
		"one for many":          {"/mine", "cgroupfs", "/mine", "/mine/c", false},
		"another's uid in ours": {"/kubepods/pod11a2-33b", "cgroupfs", "/kubepods/pod11a2-33b", "/kubepods/pod11a2-33b/c", false},
		"the root":              {"/", "cgroupfs", "/berth", "/berth/c", false},
	} {
		p := &Sandbox{ID: "id", Config: &cri.PodSandboxConfig{
			Metadata: &cri.PodSandboxMetadata{Uid: uid}, Linux: &cri.LinuxPodSandboxConfig{CgroupParent: c.parent},
		}}
		got, err := CgroupsOf(p, c.driver)
		if err != nil || got.Parent != c.want || got.Container("c") != c.container || got.Own != c.own {
			t.Errorf("%s: %+v, %s, %v", name, got, got.Container("c"), err)
		}
	}
}
