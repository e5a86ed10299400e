// Package e2e drives a real Berth over its real socket, as kubelet and people
// do, on images made here. It needs root and what make build makes: run make
// e2e. All tests share one daemon; what they leave behind fails the run.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/berth-run/berth/test/images"
	testnode "github.com/berth-run/berth/test/node"
)

// berth is the node that the tests share.
var berth *testnode.Node

const busybox = "e2e.local/busybox:1"

// handlersOwn is what a handler may have of its own.
const handlersOwn = `seccomp_profile = "runtime/default"
layer_backend = "directory"
annotations = ["e2e.test/*"]`

// options are the shared node's, whose directory is dir.
func options(dir string) testnode.Options {
	return testnode.Options{Bridge: "berthe2e0", Subnet6: "fd00:be:e2e::/64", Config: fmt.Sprintf(`
[runtime]
pids_limit = 500
cdi_spec_dirs = ["%[1]s/cdi"]
[runtime.default_ulimits]
nofile = "1000:2000"
core = "0"
[runtime.handlers.berth]
[runtime.handlers.careful]
privileged_without_host_devices = true
%[3]s
[telemetry]
trace_endpoint = "%[2]s"
[image]
pinned = ["*/pinned/*"]
signature_policy_dir = "%[1]s/policies"
registries_d = ["%[1]s/registries.d"]
[nri]
enable = "on"
socket_path = "%[1]s/nri.sock"
plugin_path = "%[1]s/nri"
plugin_config_path = "%[1]s/nri.d"
`, dir, collectorAddress, handlersOwn) + commandHandlers(dir)}
}

func TestMain(m *testing.M) {
	if os.Getenv(api.PluginNameEnvVar) != "" {
		os.Exit(bePlugin())
	}
	testnode.Suite{Name: "e2e", Busybox: busybox, Prepare: prepare, Options: options}.Main(m, &berth)
}

// load gives the node an image.
func load(name string, i images.Image) error { return berth.Load(name, i) }
