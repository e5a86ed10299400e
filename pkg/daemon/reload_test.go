package daemon

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/config"
)

func TestReloadTakesWhatCanChangeAndNamesTheRest(t *testing.T) {
	o := Options{Config: config.Default()}
	next := config.Default()
	next.LogLevel = 4
	next.Root = "/elsewhere"
	next.Runtime.PidsLimit = 9
	next.Runtime.Handlers = map[string]config.Handler{"berth": {Annotations: []string{"a"}}}
	next.Network.Builtin.MTU = 1400
	next.Image.KeepBlobs = true
	next.Image.MaxConcurrentDownloads, next.Image.PlainHTTP = 9, []string{"r"}
	next.Image.StallTimeout.Duration, next.Image.StallRate = time.Second, 7
	next.Image.MaxConnections, next.Image.MemoryBudget = 8, 32<<20
	next.Image.CertsDirs, next.Image.RegistriesConf, next.Image.AuthFiles = []string{"/c"}, []string{"/r"}, []string{"/a"}
	next.Image.Proxy = config.Proxy{HTTPS: "http://user:hidden@proxy"}
	want := []string{"root", "runtime.pids_limit", "runtime.handlers", "network.builtin.mtu", "image.keep_blobs", "image.max_connections", "image.memory_budget"}
	if diff := cmp.Diff(want, changed(o.Config, next)); diff != "" {
		t.Error(diff)
	}
	var applied []config.Config
	apply := func(_ context.Context, c config.Config) { applied = append(applied, c) }
	o.Load = func() (config.Config, error) { return next, nil }
	reload(t.Context(), &o, apply)
	now := config.Default()
	now.LogLevel = 4
	now.Image.StallRate = 7
	now.Image.MaxConcurrentDownloads, now.Image.PlainHTTP, now.Image.StallTimeout = 9, next.Image.PlainHTTP, next.Image.StallTimeout
	now.Image.CertsDirs, now.Image.RegistriesConf, now.Image.AuthFiles = next.Image.CertsDirs, next.Image.RegistriesConf, next.Image.AuthFiles
	now.Image.Proxy = next.Image.Proxy
	if len(applied) != 1 || !reflect.DeepEqual(applied[0], now) || !reflect.DeepEqual(o.Config, now) {
		t.Errorf("applied %+v, kept %+v, want %+v", applied, o.Config, now)
	}
	o.Load = func() (config.Config, error) { return config.Config{}, errors.New("wrong") }
	reload(t.Context(), &o, apply)
	if len(applied) != 1 {
		t.Error("a wrong configuration was applied")
	}
	if got := changed(next, next); len(got) != 0 {
		t.Errorf("changed: %v", got)
	}
}
