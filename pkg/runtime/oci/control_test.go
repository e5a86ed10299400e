package oci

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// made returns a container whose command is a script, which finds in $0 itself and
// beside it the files that stand for the container's cgroup. Its process runs until
// the end of the test.
func made(t *testing.T, script string) (c *container, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "runc")
	for name, text := range map[string]string{"runc": "#!/bin/sh\nd=${0%/*}; echo \"$@\" >>$d/calls\n" + script, "memory.max": "100\n", "memory.current": "70\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := exec.Command("sleep", "1000")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(p.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	c = &container{id: "c", dir: dir, note: note{Command: runtime.Command{Path: path}, PID: p.Process.Pid}, paths: cgroup.Paths{"": dir}, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	t.Cleanup(func() {
		_ = p.Process.Kill() // or it has ended
		_ = p.Wait()
		_ = c.pidfd.Close()
	})
	return c, dir
}

func score(t *testing.T, c *container) string {
	t.Helper()
	return content(t, filepath.Join("/proc", strconv.Itoa(c.note.PID), "oom_score_adj"))
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestARefusedUpdateLeavesAllAsItWas(t *testing.T) {
	limit, low, adj, wrong := int64(80), int64(50), 900, 5000
	for name, u := range map[string]struct {
		request runtime.UpdateRequest
		called  bool
		kind    error
	}{
		"the score":             {runtime.UpdateRequest{OOMScoreAdj: &wrong, Resources: memory(limit)}, false, unix.EINVAL},
		"the limits":            {runtime.UpdateRequest{OOMScoreAdj: &adj, Resources: memory(limit)}, true, nil},
		"memory that is in use": {runtime.UpdateRequest{OOMScoreAdj: &adj, Resources: memory(low)}, false, errs.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := made(t, "echo 80 >$d/memory.max; exit 1")
			if name == "memory that is in use" {
				if err := os.WriteFile(filepath.Join(dir, "memory.reclaim"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := score(t, c)
			err := c.update(t.Context(), u.request)
			if err == nil || u.kind != nil && !errors.Is(err, u.kind) {
				t.Errorf("got %v", err)
			}
			if got := score(t, c); got != before {
				t.Errorf("the score is %s, was %s", got, before)
			}
			if got := content(t, filepath.Join(dir, "memory.max")); got != "100" {
				t.Errorf("the limit is %s", got)
			}
			if _, err := os.Stat(filepath.Join(dir, "calls")); (err == nil) != u.called {
				t.Errorf("the command was called: %v", err == nil)
			}
		})
	}
}

func TestAnUpdateSetsScoreAndLimits(t *testing.T) {
	c, dir := made(t, "echo 80 >$d/memory.max; cat $d/resources.json >$d/given")
	adj := 900
	if err := c.update(t.Context(), runtime.UpdateRequest{OOMScoreAdj: &adj, Resources: memory(80)}); err != nil {
		t.Fatal(err)
	}
	if s, m, g := score(t, c), content(t, filepath.Join(dir, "memory.max")), content(t, filepath.Join(dir, "given")); s != "900" || m != "80" || !strings.Contains(g, `"limit":80`) {
		t.Errorf("score %s, limit %s, given %s", s, m, g)
	}
	if calls := content(t, filepath.Join(dir, "calls")); !strings.Contains(calls, "update --resources "+dir+"/resources.json c") {
		t.Errorf("called with %s", calls)
	}
	_ = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0) // it runs
	if err := c.awaitEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.update(t.Context(), runtime.UpdateRequest{OOMScoreAdj: &adj}); !errors.Is(err, errs.Conflict) {
		t.Errorf("of one that has ended: %v", err)
	}
}

func memory(limit int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
}
