package pod

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
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

func TestAContainersCgroupIsWhereAPluginHasPutIt(t *testing.T) {
	p := &Sandbox{ID: "id", Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Uid: "u"}}}
	for name, c := range map[string]struct {
		driver, path, want string
		outside            bool
	}{
		"as it was":             {"cgroupfs", "/berth/id/c", "/berth/id/c", false},
		"elsewhere":             {"cgroupfs", "/special/c", "/special/c", true},
		"a name that begins so": {"cgroupfs", "/berth/id2/c", "/berth/id2/c", true},
		"as it was, systemd":    {"systemd", "berth-id.slice:berth:c", "/berth.slice/berth-id.slice/berth-c.scope", false},
		"elsewhere, systemd":    {"systemd", "a-b.slice:x:y", "/a.slice/a-b.slice/x-y.scope", true},
		"a slice":               {"systemd", "a.slice::own.slice", "/own.slice", true},
		"nothing of the form":   {"systemd", "/special/c", "/berth.slice/berth-id.slice/berth-c.scope", false},
		"not known":             {"cgroupfs", "", "/berth/id/c", false},
	} {
		groups, err := CgroupsOf(p, c.driver)
		got, outside := groups.Of(&container.Container{ID: "c", CgroupsPath: c.path})
		if err != nil || got != c.want || outside != c.outside {
			t.Errorf("%s: %s, %v, %v", name, got, outside, err)
		}
	}
}
