package daemon

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/config"
)

func TestReloadTakesTheLogLevelAndNamesTheRest(t *testing.T) {
	defer setVerbosity(0)
	o := Options{Config: config.Default()}
	next := config.Default()
	next.LogLevel = 4
	next.Root = "/elsewhere"
	next.Runtime.PidsLimit = 9
	next.Runtime.Handlers = map[string]config.Handler{"berth": {Annotations: []string{"a"}}}
	next.Network.Builtin.MTU = 1400
	next.Image.PlainHTTP = []string{"r"}
	want := []string{"root", "runtime.pids_limit", "runtime.handlers", "network.builtin.mtu", "image.plain_http"}
	if diff := cmp.Diff(want, changed(o.Config, next)); diff != "" {
		t.Error(diff)
	}
	o.Load = func() (config.Config, error) { return next, nil }
	reload(t.Context(), &o)
	if !klog.V(4).Enabled() || o.Config.LogLevel != 4 || o.Config.Root != config.Default().Root {
		t.Errorf("level %d, root %s", o.Config.LogLevel, o.Config.Root)
	}
	o.Load = func() (config.Config, error) { return config.Config{}, errors.New("wrong") }
	reload(t.Context(), &o)
	if !klog.V(4).Enabled() {
		t.Error("a wrong configuration changed the level")
	}
	if got := changed(next, next); len(got) != 0 {
		t.Errorf("changed: %v", got)
	}
}
