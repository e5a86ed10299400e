// Package crash kills Berth in the middle of its work, and looks for what that
// costs: kill -9 of berthd, of the worker, of the anchor, and of berthd and the
// worker together, while a pod or a container is made, started, stopped or
// removed, an image is pulled, a command runs in a container, and while a
// container writes a numbered line each millisecond.
//
// After each death: every container runs or has its true exit code, no line is
// missing from a log, the same call made again succeeds, berth check finds
// nothing, and the machine has nothing that was not there before.
//
// It needs root and what make build makes: run make crash.
package crash

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
)

// berth is the node that dies.
var berth *testnode.Node

const busybox = "crash.local/busybox:1"

// kubepods is the cgroup that plays kubelet's, and systemd says whether a unit of
// systemd is behind it: both are settled before the tests begin.
var (
	kubepods = "/kubepods"
	systemd  bool
)

func TestMain(m *testing.M) {
	testnode.Suite{
		Name: "crash", Busybox: busybox,
		Options: func(string) testnode.Options {
			return testnode.Options{Bridge: "berthcrash0", Config: "[image]\nkeep_blobs = false\n"}
		},
		Started: func(n *testnode.Node) error {
			r, err := n.Runtime.RuntimeConfig(context.Background(), &cri.RuntimeConfigRequest{})
			if systemd = r.GetLinux().GetCgroupDriver() == cri.CgroupDriver_SYSTEMD; systemd {
				kubepods = "/kubepods.slice"
			}
			return err
		},
		Clean: func() { // what kubelet's cgroup holds no more can be removed
			if systemd {
				_ = exec.Command("systemctl", "stop", filepath.Base(kubepods)).Run()
				return
			}
			groups, _ := filepath.Glob("/sys/fs/cgroup/*" + kubepods)
			for _, dir := range append(groups, "/sys/fs/cgroup"+kubepods) {
				_ = os.Remove(dir)
			}
		},
	}.Main(m, &berth)
}
