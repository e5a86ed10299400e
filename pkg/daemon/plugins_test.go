package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/berth-run/berth/pkg/host"
)

// listener is a plugin that tells when it has been told what there is.
type listener chan string

func (l listener) Configure(_ context.Context, _, runtime, version string) (api.EventMask, error) {
	l <- runtime + " " + version
	return 0, nil
}

func (l listener) RunPodSandbox(context.Context, *api.PodSandbox) error { return nil }

func TestPluginsConnectWhileTheDaemonServes(t *testing.T) {
	o := Options{Config: testConfig(t), Version: "v9"}
	_, stop := run(t, o)
	told := make(listener, 1)
	s, err := stub.New(told, stub.WithSocketPath(o.Config.NRI.SocketPath), stub.WithPluginName("test"), stub.WithPluginIdx("10"))
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	select {
	case got := <-told:
		if got != "berth v9" {
			t.Errorf("the plugin was told of %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the plugin was told nothing")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(o.Config.NRI.SocketPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestAStandaloneDaemonLeavesThePluginsOfTheNodeAlone(t *testing.T) {
	for enable, want := range map[string]bool{"auto": false, "on": true, "off": false} {
		o := Options{Config: testConfig(t), Standalone: true}
		o.Config.NRI.Enable = enable
		n, err := openPlugins(o, host.Facts{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (n != nil) != want || (podPlugins(n) != nil) != want || (containerPlugins(n) != nil) != want {
			t.Errorf("%s: plugins %v", enable, n)
		}
	}
}

func TestOnlyWhatPluginsMustNotDoKeepsTheDaemonFromStarting(t *testing.T) {
	o := Options{Config: testConfig(t)}
	if err := os.WriteFile(o.Config.NRI.PluginPath, nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	_, stop := run(t, o)
	if err := stop(); err != nil {
		t.Error(err)
	}
	o.Config.NRI.DefaultValidator.Enable = true
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "nri.default_validator") {
		t.Errorf("got %v", err)
	}
}
