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
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	testnode "github.com/berth-run/berth/test/node"
)

// berth is the node that dies.
var berth *testnode.Node

const busybox = "crash.local/busybox:1"

func TestMain(m *testing.M) {
	flag.Parse()
	inside, code, err := testnode.Isolate()
	if err != nil {
		code = complain(err)
	} else if inside {
		code = run(m)
	}
	os.Exit(code)
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "bcrash")
	if err != nil {
		return complain(err)
	}
	before, err := testnode.Take(dir)
	if err != nil {
		return complain(err)
	}
	code := 1
	if err := start(dir); err != nil {
		complain(err)
	} else {
		code = m.Run()
	}
	if berth != nil {
		if err := berth.Close(); err != nil {
			code = complain(err)
		}
	}
	// What kubelet's cgroup holds no more can be removed.
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + kubepods)
	for _, dir := range append(groups, "/sys/fs/cgroup"+kubepods) {
		_ = os.Remove(dir)
	}
	for _, thing := range left(dir, before) {
		code = complain(fmt.Errorf("left over: %s", thing))
	}
	if code != 0 {
		tail(dir + "/berthd.log")
		tail(dir + "/run/berth-runtime.log")
	}
	os.RemoveAll(dir)
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "crash:", err)
	return 1
}

func start(dir string) (err error) {
	berth, err = testnode.New(dir, testnode.Options{Bridge: "berthcrash0", Config: "[image]\nkeep_blobs = false\n"})
	if err != nil {
		return err
	}
	if err := berth.Start(); err != nil {
		return err
	}
	image, err := images.Busybox()
	if err != nil {
		return err
	}
	f, err := os.Create(dir + "/image.tar")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := images.Archive(f, busybox, image); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = berth.Berth(ctx, "load", "-i", f.Name())
	return err
}

// left waits a moment for what ends by itself, and returns what does not.
func left(dir string, before testnode.Snapshot) (left []string) {
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
	fmt.Fprintln(os.Stderr, path+":")
	os.Stderr.Write(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}
