package container_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
)

// dumped returns the checkpoint of a started container of that configuration.
func (n *node) dumped(c *cri.ContainerConfig) (id string, part *checkpoint.Part) {
	n.t.Helper()
	id = n.started(c)
	dir := n.t.TempDir()
	all, err := n.Dump(n.t.Context(), []string{id}, func(i int) string { return checkpoint.Dir(dir, i) })
	if err == nil {
		err = checkpoint.Finish(dir, all)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	d, err := checkpoint.Open(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { d.Close() })
	if part, err = d.Container(c.Metadata.Name); err != nil {
		n.t.Fatal(err)
	}
	return id, part
}

// since returns the calls of some verbs after the first n.
func (n *node) since(first int, verbs ...string) (all []string) {
	for _, call := range n.runtime.Calls()[first:] {
		verb, _, _ := strings.Cut(call, " ")
		if slices.Contains(verbs, verb) {
			all = append(all, verb)
		}
	}
	return all
}

func TestAllArePausedBeforeTheFirstIsDumped(t *testing.T) {
	verbs := []string{runtime.VerbPause, runtime.VerbCheckpoint, runtime.VerbResume}
	for what, fail := range map[string]string{"success": "", "a failed pause": runtime.VerbPause, "a failed dump": runtime.VerbCheckpoint} {
		n := newNode(t)
		ids := []string{n.started(testConfig("a")), n.started(testConfig("b"))}
		slices.Sort(ids)
		n.runtime.Fail = func(verb, id string) error {
			if verb == fail && id == ids[1] {
				return errs.Exhausted
			}
			return nil
		}
		first, dir := len(n.runtime.Calls()), t.TempDir()
		_, err := n.Dump(t.Context(), ids, func(i int) string { return checkpoint.Dir(dir, i) })
		want := []string{"Pause", "Pause", "Checkpoint", "Checkpoint", "Resume", "Resume"}
		if fail == runtime.VerbPause {
			want = []string{"Pause", "Pause", "Resume", "Resume"}
		}
		if got := n.since(first, verbs...); !slices.Equal(got, want) || (err == nil) != (fail == "") {
			t.Errorf("%s: %q, %v", what, got, err)
		}
		listed, _ := n.runtime.List(t.Context())
		for _, c := range listed {
			if c.State != runtime.Running {
				t.Errorf("%s: left %s", what, c.State)
			}
		}
	}
}

// lateRuntime pauses, for a caller who has gone, after the caller has asked it to
// resume.
type lateRuntime struct {
	*runtimetest.Fake
	leave context.CancelFunc
	late  []string
}

func (r *lateRuntime) Pause(ctx context.Context, id string) error {
	r.leave()
	if err := ctx.Err(); err != nil {
		r.late = append(r.late, id)
		return err
	}
	return r.Fake.Pause(ctx, id)
}

func (r *lateRuntime) Resume(ctx context.Context, id string) error {
	err := r.Fake.Resume(ctx, id)
	for _, late := range r.late {
		_ = r.Fake.Pause(ctx, late)
	}
	return err
}

func TestADumpThatIsGivenUpLeavesNothingPaused(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	n := newNode(t)
	n.over = func(f *runtimetest.Fake) runtime.Runtime { return &lateRuntime{Fake: f, leave: leave} }
	n.restart()
	id := n.started(testConfig("a"))
	if _, err := n.Dump(ctx, []string{id}, func(int) string { return t.TempDir() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if listed, _ := n.runtime.List(t.Context()); listed[0].State != runtime.Running {
		t.Errorf("left %s", listed[0].State)
	}
}

func TestOnlyWhatRunsIsDumped(t *testing.T) {
	n := newNode(t)
	running, created := n.started(testConfig("a")), n.create(testConfig("b"))
	_, err := n.Dump(t.Context(), []string{running, created}, func(int) string { return t.TempDir() })
	if !errors.Is(err, errs.Conflict) {
		t.Errorf("a created one: %v", err)
	}
	if listed, _ := n.runtime.List(t.Context()); slices.ContainsFunc(listed, func(c runtime.Container) bool { return c.State == runtime.Paused }) {
		t.Errorf("left paused: %v", listed)
	}
}

func TestWhatCannotBeCheckpointedIsRefusedBeforeAnythingIsPaused(t *testing.T) {
	n := newNode(t)
	n.host = host.Facts{UserNamespaces: true, IDMapMounts: true, OverlayIDMap: true}
	n.commands = fakeCommands{&container.Command{Command: &runtime.Command{Path: "/bin/crun", Root: "/run/crun"}}}
	n.restart()
	plain := n.started(testConfig("plain"))
	ids := []*cri.IDMapping{{HostId: 1 << 20, Length: 1 << 16}}
	for what, change := range map[string]func(*container.Pod){
		"user namespaces": func(p *container.Pod) {
			p.Config.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{
				UsernsOptions: &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: ids, Gids: ids},
			}}}
			p.Namespaces = map[specs.LinuxNamespaceType]string{specs.UserNamespace: "/proc/self/ns/user"}
		},
		"the node's processes": func(p *container.Pod) {
			p.Config.Linux = &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_NODE}}}
		},
		"runtime handler berth": func(p *container.Pod) { p.Handler = "berth" },
	} {
		p := testPod()
		change(&p)
		c := testConfig(strings.ReplaceAll(what, " ", "-"))
		c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()}}
		id, err := n.Create(t.Context(), p, c)
		if err == nil {
			err = n.Start(t.Context(), id)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.restart() // what refuses it is on disk
		first := len(n.runtime.Calls())
		_, err = n.Dump(t.Context(), []string{plain, id}, func(int) string { return t.TempDir() })
		if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), what) || len(n.since(first, "Pause")) != 0 {
			t.Errorf("%s: %v, %q", what, err, n.since(first, "Pause"))
		}
	}
}

func TestWhatACheckpointLeftPausedIsResumed(t *testing.T) {
	n := newNode(t)
	id := n.started(testConfig("a"))
	if err := n.runtime.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if listed, _ := n.runtime.List(t.Context()); listed[0].State != runtime.Running {
		t.Errorf("after a restart: %v", listed)
	}
}

func TestAContainerFromACheckpointWaitsAndGoesOn(t *testing.T) {
	n := newNode(t)
	old, part := n.dumped(testConfig("c"))
	if err := n.Remove(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	id, err := n.CreateFrom(t.Context(), testPod(), testConfig("c"), part)
	if err != nil {
		t.Fatal(err)
	}
	if n.images.changes != "changes of "+old {
		t.Errorf("the root file system begins with %q", n.images.changes)
	}
	n.restart() // the runtime knows nothing of it, and that is as it should be
	if st := n.get(id).Status; st.State != container.Created {
		t.Fatalf("after a restart: %+v", st)
	}
	if problems, err := n.Check(t.Context(), false); err != nil || len(problems) != 0 {
		t.Errorf("problems %v, %v", problems, err)
	}
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 7}); !errors.Is(err, errs.Conflict) {
		t.Errorf("update: %v", err)
	}
	first := len(n.runtime.Calls())
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.State != container.Running || st.PID == 0 {
		t.Errorf("after Start: %+v", st)
	}
	if got := n.since(first, "Create", "Start", "Restore"); !slices.Equal(got, []string{"Restore"}) && !slices.Equal(got, []string{"Restore", "Create"}) {
		t.Errorf("calls %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(n.root, "containers", id, "restore")); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestAConfigurationOfAnotherProcessIsRefused(t *testing.T) {
	n := newNode(t)
	_, part := n.dumped(testConfig("c"))
	for what, change := range map[string]func(*cri.ContainerConfig){
		"args":     func(c *cri.ContainerConfig) { c.Args = []string{"x"} },
		"env":      func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b")}} },
		"cwd":      func(c *cri.ContainerConfig) { c.WorkingDir = "/tmp" },
		"terminal": func(c *cri.ContainerConfig) { c.Tty = true },
		"stdin":    func(c *cri.ContainerConfig) { c.Stdin = true },
		"mounts":   func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{HostPath: "/etc", ContainerPath: "/host"}} },
		"limits": func(c *cri.ContainerConfig) {
			c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{ReadonlyRootfs: true}}
		},
		"user": func(c *cri.ContainerConfig) {
			c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{RunAsUser: &cri.Int64Value{Value: 7}}}
		},
	} {
		c := testConfig("c")
		c.Metadata.Attempt = 1
		change(c)
		mounts := n.images.mounts()
		_, err := n.CreateFrom(t.Context(), testPod(), c, part)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "its "+what+" are not those of the checkpoint") {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := os.ReadDir(filepath.Join(n.root, "containers")); len(left) != 1 || n.images.mounts() != mounts {
			t.Errorf("%s: left over %v", what, left)
		}
	}
}

func TestACheckpointOfOneContainerIsAnArchive(t *testing.T) {
	n := newNode(t)
	id, to := n.started(testConfig("c")), filepath.Join(t.TempDir(), "c.tar")
	if err := n.Checkpoint(t.Context(), id, "c.tar"); !errors.Is(err, errs.Invalid) {
		t.Errorf("a relative path: %v", err)
	}
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbCanCheckpoint {
			return errs.Unsupported
		}
		return nil
	}
	first := len(n.runtime.Calls())
	if err := n.Checkpoint(t.Context(), id, to); !errors.Is(err, errs.Unsupported) || len(n.since(first, "Pause")) != 0 {
		t.Errorf("without CRIU: %v, %q", err, n.since(first, "Pause"))
	}
	n.runtime.Fail = nil
	if err := n.Checkpoint(t.Context(), id, to); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(to)
	for _, name := range []string{"checkpoint/pages-1.img", "rootfs-diff.tar", "config.dump", "spec.dump"} {
		if err != nil || !strings.Contains(string(data), name) {
			t.Errorf("the archive lacks %s, %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(n.root, "containers", id, "dump-*")); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}
