package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/spec"
)

func TestTheConfigurationReachesEveryHandler(t *testing.T) {
	c := config.Default().Runtime
	c.Handlers["plain"] = config.Handler{Annotations: []string{"a*"}, PrivilegedWithoutHostDevices: true}
	c.Handlers["unconfined"] = config.Handler{SeccompProfile: "unconfined"}
	c.DefaultHandler = "plain"
	c.SeccompProfile, c.AppArmorProfile, c.PidsLimit, c.OOMScoreAdjMin = "runtime/default", "profile", 7, -5
	c.DefaultUlimits = map[string]config.Ulimit{"nofile": {Soft: 1, Hard: 2}, "core": {Soft: 3, Hard: 4}}
	all := handlerOptions(c, spec.Systemd)
	want := spec.Options{
		CgroupDriver: spec.Systemd, Capabilities: c.DefaultCapabilities, SeccompUnset: "runtime/default", AppArmorProfile: "profile",
		PidsLimit: 7, OOMScoreAdjMin: -5, Annotations: []string{"a*"}, PrivilegedWithoutHostDevices: true,
	}
	want.Limit("core", 3, 4)
	want.Limit("nofile", 1, 2)
	if diff := cmp.Diff(want, all["plain"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(all["plain"], all[""]); diff != "" {
		t.Errorf("the default one: %s", diff)
	}
	if diff := cmp.Diff([]string{"berth", "plain", "unconfined"}, handlerNames(c)); diff != "" || len(all) != 4 {
		t.Errorf("%d handlers: %s", len(all), diff)
	}
	c.Handlers["trees"] = config.Handler{LayerBackend: "directory"}
	if diff := cmp.Diff(map[string]bool{"": false, "berth": false, "plain": false, "unconfined": false, "trees": true}, directoryHandlers(c)); diff != "" {
		t.Errorf("directories: %s", diff)
	}
	delete(c.Handlers, "trees")
	if p := all["unconfined"].SeccompUnset; p != "unconfined" {
		t.Errorf("seccomp profile of a handler of its own: %q", p)
	}
	facts := host.Facts{RecursiveReadOnly: true, UserNamespaces: true, IDMapMounts: true, OverlayIDMap: true}
	reported := reportedHandlers(t.Context(), newCommands(config.Config{Runtime: c}), facts)
	if len(reported) != 4 || reported[0].Name != "" || !reported[2].UserNamespaces || !reported[2].RecursiveReadOnly {
		t.Errorf("reported: %v", reported)
	}
}

func TestTheCgroupDriverIsTheConfiguredElseTheRuntimes(t *testing.T) {
	for _, c := range []struct{ configured, runtimes, want string }{
		{"cgroupfs", "systemd", "cgroupfs"},
		{"systemd", "", "systemd"},
		{"auto", "systemd", "systemd"},
		{"auto", "cgroupfs", "cgroupfs"},
		{"auto", "", "cgroupfs"}, // cgroup version 1
	} {
		if got := cgroupDriver(c.configured, c.runtimes, host.Facts{}); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestAutomaticAppArmorIsOurProfileWhereItIsLoaded(t *testing.T) {
	loaded := func(name string) bool { return name == "berth-default" }
	none := func(string) bool { return false }
	for _, c := range []struct {
		configured string
		loaded     func(string) bool
		want       string
	}{{"auto", loaded, "berth-default"}, {"auto", none, ""}, {"", loaded, ""}, {"site", none, "site"}} {
		if got := appArmorProfile(c.configured, c.loaded); got != c.want {
			t.Errorf("%q: %q, want %q", c.configured, got, c.want)
		}
	}
}
