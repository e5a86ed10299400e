package e2e

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

// needCRIU skips where no checkpoints are: make vm has a machine for them.
func needCRIU(t *testing.T) {
	t.Helper()
	if !criuWorks() {
		t.Skip("CRIU is not here, or this kernel does not let it work: make vm has both")
	}
}

func criuWorks() bool { return exec.Command("criu", "check").Run() == nil }

// counting is a container that counts in memory, in its output and in a file.
func counting() *cri.ContainerConfig {
	return sh(`n=0; while :; do n=$((n+1)); echo $n > /new; mv /new /count; echo $n; sleep 0.1; done`)
}

// count is what it has counted to.
func count(c *ctr) int {
	c.t.Helper()
	r, err := berth.Runtime.ExecSync(c.t.Context(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/cat", "/count"}})
	if code(err) == codes.FailedPrecondition {
		return 0 // it is paused: berthd ends after a caller who has gone
	}
	if err != nil {
		c.t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(r.Stdout))) // 0 while there is none
	return n
}

func countsFrom(c *ctr, n int) int {
	c.t.Helper()
	got := 0
	eventually(c.t, func() error {
		if got = count(c); got <= n {
			return fmt.Errorf("it counts %d, and was at %d", got, n)
		}
		return nil
	})
	return got
}

// first is the first number in the log.
func first(c *ctr) (n int) {
	c.t.Helper()
	eventually(c.t, func() error {
		line, _, _ := strings.Cut(c.written(), "\n")
		var err error
		n, err = strconv.Atoi(strings.TrimSpace(line))
		return err
	})
	return n
}

// checkpoint writes containers of the pod into a new directory.
func (p *pod) checkpoint(t *testing.T, all ...*ctr) string {
	t.Helper()
	dir := t.TempDir()
	r := &cri.CheckpointPodRequest{PodSandboxId: p.id, OutputPath: dir}
	for _, c := range all {
		r.ContainerIds = append(r.ContainerIds, c.id)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(30*time.Second))
	defer cancel()
	if _, err := berth.Runtime.CheckpointPod(ctx, r); err != nil {
		t.Fatal(err)
	}
	return dir
}

// restore makes a pod like p, and containers that wait for their start.
func (p *pod) restore(t *testing.T, dir string, configs ...*cri.ContainerConfig) (*pod, []*ctr) {
	t.Helper()
	like, r := p.like(t), &cri.RestorePodRequest{CheckpointPath: dir, ContainerConfigs: configs}
	r.Config = like
	resp, err := berth.Runtime.RestorePod(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	again := &pod{t, resp.PodSandboxId, like}
	t.Cleanup(again.remove)
	var all []*ctr
	for n, c := range resp.RestoredContainers {
		if c.Name != configs[n].Metadata.Name {
			t.Errorf("container %d is %s", n, c.Name)
		}
		k := &ctr{t, again, c.ContainerId}
		if s := k.status(); s.State != cri.ContainerState_CONTAINER_CREATED || s.StartedAt != 0 {
			t.Errorf("restored: %v", s)
		}
		all = append(all, k)
	}
	return again, all
}

// like is the configuration of another pod of the same kind.
func (p *pod) like(t *testing.T) *cri.PodSandboxConfig {
	c, fresh := proto.CloneOf(p.config), podConfig(t)
	c.Metadata, c.LogDirectory = fresh.Metadata, fresh.LogDirectory
	return c
}

// wantUnpaused wants the container to go on, and nothing of a checkpoint to be left.
func wantUnpaused(t *testing.T, all ...*ctr) {
	t.Helper()
	for _, c := range all {
		countsFrom(c, count(c))
	}
	eventually(t, func() error {
		if out, err := exec.Command("pidof", "criu").Output(); err == nil {
			return fmt.Errorf("CRIU runs as %s", out)
		}
		left, _ := filepath.Glob(filepath.Join(berth.Dir, "data/containers/*/dump-*"))
		more, _ := filepath.Glob(filepath.Join(berth.State(), "runtime/*/.dump-*"))
		if left = append(left, more...); len(left) != 0 {
			return fmt.Errorf("left over: %q", left)
		}
		return nil
	})
}

// throughACheckpoint lets a pod with two containers that count be checkpointed,
// stopped and restored: how far they had come, the checkpoint, and who they are again.
func throughACheckpoint(t *testing.T, p *pod) (before []int, dir string, again []*ctr) {
	t.Helper()
	configs := []*cri.ContainerConfig{counting(), counting()}
	all := []*ctr{p.start(configs[0]), p.start(configs[1])}
	for _, c := range all {
		countsFrom(c, 3)
	}
	before = []int{count(all[0]), count(all[1])}
	dir = p.checkpoint(t, all...)
	wantUnpaused(t, all...)
	p.stop()
	_, again = p.restore(t, dir, configs...)
	return before, dir, again
}

func TestThePodsContainersAreCheckpointedAtOnceAndGoOn(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own)
	before, dir, again := throughACheckpoint(t, p)
	if err := os.RemoveAll(dir); err != nil { // it is not needed any more
		t.Fatal(err)
	}
	for n, c := range again {
		c.start()
		countsFrom(c, before[n])
		if at := first(c); at < before[n] {
			t.Errorf("container %d began with %d, it was checkpointed at %d or later", n, at, before[n])
		}
	}
	again[0].stop(0) // the kill is seen as of any other
	if s := again[0].await(); s.ExitCode != 137 {
		t.Errorf("after its end: %v", s)
	}
	countsFrom(again[1], count(again[1]))
}

// entries are the files of an archive.
func entries(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err == nil {
			all[h.Name], err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("%s has the type %q", h.Name, h.Typeflag)
		}
	}
}

func TestACheckpointOfAContainerIsAWholeArchive(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own)
	config := counting()
	c := p.start(config)
	countsFrom(c, 3)
	before, to := count(c), filepath.Join(t.TempDir(), "c.tar")
	if _, err := berth.Runtime.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{ContainerId: c.id, Location: to}); err != nil {
		t.Fatal(err)
	}
	wantUnpaused(t, c)
	all := entries(t, to)
	for _, name := range []string{"checkpoint/inventory.img", "checkpoint/core-1.img", "checkpoint/pages-1.img", "checkpoint/files.img", "dump.log"} {
		if len(all[name]) == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	var notes struct{ ID, Name, RootfsImage, RootfsImageName, Runtime string }
	if err := json.Unmarshal(all["config.dump"], &notes); err != nil || notes.ID != c.id || notes.Name != config.Metadata.Name || notes.RootfsImage == "" || notes.RootfsImageName != busybox {
		t.Errorf("config.dump: %+v, %v", notes, err)
	}
	var spec struct{ Process struct{ Args []string } }
	if err := json.Unmarshal(all["spec.dump"], &spec); err != nil || !slices.Equal(spec.Process.Args, config.Command) {
		t.Errorf("spec.dump: %+v, %v", spec, err)
	}
	// It is the same as a part of a pod's checkpoint: so what is missing there shows.
	countsFrom(c, count(c)+20)
	dir := p.checkpoint(t, c)
	later := count(c)
	part := filepath.Join(dir, "0")
	if err := os.RemoveAll(part); err != nil {
		t.Fatal(err)
	}
	for name, data := range all {
		if strings.HasSuffix(name, "/") {
			continue
		}
		path := filepath.Join(part, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	p.stop()
	_, again := p.restore(t, dir, config)
	again[0].start()
	if at := first(again[0]); at < before || at >= later {
		t.Errorf("it goes on with %d, the archive was made after %d and the other checkpoint before %d", at, before, later)
	}
	countsFrom(again[0], before)
}

func TestAContainerWithATerminalIsCheckpointed(t *testing.T) {
	needCRIU(t)
	p := runPod(t) // on the host's network
	config := counting()
	config.Tty, config.Stdin = true, true
	c := p.start(config)
	countsFrom(c, 3)
	before := count(c)
	dir := p.checkpoint(t, c)
	wantUnpaused(t, c)
	p.stop()
	_, again := p.restore(t, dir, config)
	again[0].start()
	countsFrom(again[0], before)
	if at := first(again[0]); at < before {
		t.Errorf("it goes on with %d, it was at %d", at, before)
	}
	out, _ := again[0].exec("/bin/sh", "-c", "tty < /proc/1/fd/1; stty -F /proc/1/fd/1 size")
	if !strings.HasPrefix(out, "/dev/") {
		t.Errorf("its terminal: %q", out)
	}
}

func TestContainersThatShareProcessesAreCheckpointed(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	})
	before, _, again := throughACheckpoint(t, p)
	for n, c := range again {
		c.start()
		countsFrom(c, before[n])
	}
	if out := again[0].sh("ps"); strings.Count(out, "n=0; while") < 2 {
		t.Errorf("its processes: %s", out)
	}
}

func TestWhatCannotBeCheckpointedGoesOn(t *testing.T) {
	needCRIU(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	})
	c, dir := p.start(counting()), t.TempDir()
	_, err := berth.Runtime.CheckpointPod(t.Context(), &cri.CheckpointPodRequest{PodSandboxId: p.id, OutputPath: dir, ContainerIds: []string{c.id}})
	if code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "the node's processes") {
		t.Errorf("the pod: %v", err)
	}
	_, err = berth.Runtime.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{ContainerId: c.id, Location: filepath.Join(dir, "c.tar")})
	if left, _ := os.ReadDir(dir); code(err) != codes.Unimplemented || len(left) != 0 {
		t.Errorf("the container: %v, left %v", err, left)
	}
	wantUnpaused(t, c)
}

// TestACheckpointThatIsGivenUpLeavesNothing gives up at one moment after the other.
func TestACheckpointThatIsGivenUpLeavesNothing(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own)
	all := []*ctr{p.start(counting()), p.start(counting())}
	for _, c := range all {
		countsFrom(c, 1)
	}
	failed := 0
	for _, ms := range []time.Duration{0, 10, 30, 100, 300} {
		after := ms * time.Millisecond
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(after))
		_, err := berth.Runtime.CheckpointPod(ctx, &cri.CheckpointPodRequest{PodSandboxId: p.id, OutputPath: dir, ContainerIds: []string{all[0].id, all[1].id}})
		cancel()
		wantUnpaused(t, all...)
		if err == nil {
			continue
		}
		failed++
		if code(err) != codes.DeadlineExceeded {
			t.Errorf("after %s: %v", after, err)
		}
		eventually(t, func() error { // berthd ends after its caller
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				return fmt.Errorf("left over: %v, %w", left, err)
			}
			return nil
		})
	}
	if failed < 2 {
		t.Errorf("only %d have been given up", failed)
	}
	to := filepath.Join(t.TempDir(), "c.tar")
	_, err := berth.Runtime.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{ContainerId: all[0].id, Location: to, Timeout: -1})
	if code(err) != codes.InvalidArgument {
		t.Errorf("a timeout below 0: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(20*time.Millisecond))
	defer cancel()
	_, err = berth.Runtime.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: all[0].id, Location: to})
	wantUnpaused(t, all...)
	if left, _ := filepath.Glob(filepath.Dir(to) + "/*"); err != nil && len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}
