package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// await returns the version once it satisfies ok.
func await(t testing.TB, c *runtime.Client, ok func(runtime.Version) bool) (v runtime.Version) {
	t.Helper()
	testutil.Await(t, 20*time.Second, func() (err error) {
		if v, err = c.Version(t.Context()); err == nil && !ok(v) {
			err = fmt.Errorf("server is %+v", v)
		}
		return err
	})
	return v
}

// TestContainersOutliveTheWorkerAndAnUpgrade kills the worker, upgrades, and
// kills it again, while a real container writes numbered lines.
func TestContainersOutliveTheWorkerAndAnUpgrade(t *testing.T) {
	c, state := serve(t)
	log := filepath.Join(state, "log")
	root := rootfs(t)
	const script = `i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; busybox sleep 1; echo end; exit 9`
	run(t, c, runtime.CreateRequest{ID: "c", Spec: containerSpec(root, "c", "sh", "-c", script), LogPath: log})
	first := await(t, c, func(runtime.Version) bool { return true })
	for _, step := range []struct {
		signal syscall.Signal
		worker bool
	}{{syscall.SIGKILL, true}, {syscall.SIGUSR2, false}, {syscall.SIGKILL, true}} {
		v := await(t, c, func(runtime.Version) bool { return true })
		pid := v.AnchorPID
		if step.worker {
			pid = v.WorkerPID
		}
		if err := syscall.Kill(pid, step.signal); err != nil {
			t.Fatal(err)
		}
		await(t, c, func(now runtime.Version) bool {
			return now.WorkerPID != v.WorkerPID && now.AnchorPID == first.AnchorPID
		})
	}
	var got runtime.Container
	testutil.Await(t, 30*time.Second, func() error {
		all, err := c.List(t.Context())
		if err != nil || len(all) != 1 || all[0].State != runtime.Stopped {
			return fmt.Errorf("%v, %w", all, err)
		}
		got = all[0]
		return nil
	})
	if got.ExitCode != 9 {
		t.Errorf("got %+v", got)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for i, line := range lines[:len(lines)-1] {
		if !strings.HasSuffix(line, " stdout F "+strconv.Itoa(i)) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if len(lines) != 20001 || !strings.HasSuffix(lines[20000], " end") {
		t.Errorf("%d lines", len(lines))
	}
}
