// Package e2e drives a real Berth over its real socket, as kubelet and people
// do, on images made here. It needs root and what make build makes: run make
// e2e. All tests share one daemon; what they leave behind fails the run.
package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

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

// signatures end the table of images: where the shared node looks for the policies
// of namespaces and for what they need.
func signatures(dir string) string {
	return fmt.Sprintf("\nsignature_policy_dir = %q\nregistries_d = [%q]\n", dir+"/policies", dir+"/registries.d")
}

func TestMain(m *testing.M) {
	flag.Parse()
	inside, code, err := testnode.Isolate(prepare)
	if err != nil {
		code = fail(err)
	} else if inside {
		code = run(m)
	}
	os.Exit(code)
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "be2e")
	if err != nil {
		return fail(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // user namespaces pass through
		return fail(err)
	}
	before, err := testnode.Take(dir)
	if err != nil {
		return fail(err)
	}
	code := 1
	if err := start(dir); err != nil {
		fail(err)
	} else {
		code = m.Run()
	}
	if berth != nil {
		if err := berth.Close(); err != nil {
			code = fail(err)
		}
	}
	if left := leaks(dir, before); len(left) > 0 {
		code = 1
		for _, thing := range left {
			fmt.Fprintln(os.Stderr, "left over:", thing)
		}
	}
	if code != 0 {
		tail(dir + "/berthd.log")
	}
	os.RemoveAll(dir)
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// start starts the shared node and gives it an image.
func start(dir string) (err error) {
	berth, err = testnode.New(dir, testnode.Options{Config: config + signatures(dir), Bridge: "berthe2e0", Subnet6: "fd00:be:e2e::/64"})
	if err != nil {
		return err
	}
	if err := berth.Start(); err != nil {
		return err
	}
	b, err := images.Busybox()
	if err != nil {
		return err
	}
	return load(busybox, b)
}

// load gives the node an image.
func load(name string, i images.Image) error {
	f, err := os.CreateTemp(berth.Dir, "image")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := images.Archive(f, name, i); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	_, err = berth.Berth(ctx, "load", "-i", f.Name())
	return err
}

// leaks waits a moment for what ends by itself, and returns what is left.
func leaks(dir string, before testnode.Snapshot) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = testnode.Until(ctx, func() error {
		now, err := testnode.Take(dir)
		if left = now.Left(before); err == nil && len(left) > 0 {
			return fmt.Errorf("%d things are left", len(left))
		}
		return err
	})
	return left
}

func tail(path string) {
	data, _ := os.ReadFile(path)
	lines := bytes.Split(data, []byte("\n"))
	os.Stderr.Write(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}
