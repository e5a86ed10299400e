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

// config is what the shared node does differently from others.
const config = `
[runtime]
pids_limit = 500
[runtime.default_ulimits]
nofile = "1000:2000"
core = "0"
[runtime.handlers.berth]
[runtime.handlers.careful]
privileged_without_host_devices = true
[telemetry]
trace_endpoint = "` + collectorAddress + `"
[image]
pinned = ["*/pinned/*"]
`

// paths end the table of images: where the shared node looks for the policies of
// namespaces and for what they need; and for NRI plugins.
func paths(dir string) string {
	return fmt.Sprintf("\nsignature_policy_dir = %q\nregistries_d = [%q]\n", dir+"/policies", dir+"/registries.d") +
		fmt.Sprintf("[nri]\nenable = \"on\"\nsocket_path = %q\nplugin_path = %q\nplugin_config_path = %q\n", dir+"/nri.sock", dir+"/nri", dir+"/nri.d")
}

// options are the shared node's.
func options(dir string) testnode.Options {
	return testnode.Options{Config: config + paths(dir), Bridge: "berthe2e0", Subnet6: "fd00:be:e2e::/64"}
}

func TestMain(m *testing.M) {
	if os.Getenv(api.PluginNameEnvVar) != "" {
		os.Exit(bePlugin())
	}
	testnode.Suite{Name: "e2e", Busybox: busybox, Prepare: prepare, Options: options}.Main(m, &berth)
}

// load gives the node an image.
func load(name string, i images.Image) error { return berth.Load(name, i) }
