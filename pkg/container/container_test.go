package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/runtime"
)

func TestAContainerLivesThroughItsStates(t *testing.T) {
	n := newNode(t)
	events, cancel := n.Subscribe(16)
	defer cancel()
	id := n.create(testConfig("c"))
	if st := n.get(id).Status; st.State != container.Created {
		t.Fatalf("after Create: %+v", st)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.State != container.Running || st.StartedAt.IsZero() || st.PID == 0 {
		t.Fatalf("after Start: %+v", st)
	}
	n.runtime.Exit(id, 0, false)
	if st := n.await(id); st.Reason != "Completed" || st.ExitCode != 0 || st.FinishedAt.IsZero() || st.PID != 0 {
		t.Errorf("after exit: %+v", st)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(id); !errors.Is(err, errs.NotFound) {
		t.Errorf("after Remove: %v", err)
	}
	for _, want := range []container.EventType{container.EventCreated, container.EventStarted, container.EventStopped, container.EventDeleted} {
		if e := <-events; e.Type != want || e.Container.ID != id {
			t.Errorf("event %s of %s, want %s", e.Type, e.Container.ID, want)
		}
	}
	left, _ := os.ReadDir(filepath.Join(n.root, "containers"))
	if listed, _ := n.runtime.List(t.Context()); len(left)+len(listed)+n.images.mounts() != 0 {
		t.Errorf("left over: directories %v, containers %v, %d mounts", left, listed, n.images.mounts())
	}
}

func TestReasonsOfTheEnd(t *testing.T) {
	for want, exit := range map[string]struct {
		code int32
		oom  bool
	}{"Completed": {0, false}, "Error": {3, false}, "OOMKilled": {137, true}} {
		n := newNode(t)
		id := n.started(testConfig("c"))
		n.runtime.Exit(id, exit.code, exit.oom)
		if st := n.await(id); st.Reason != want || st.ExitCode != exit.code {
			t.Errorf("want %s, got %+v", want, st)
		}
	}
}

func TestARepeatedCreateReturnsTheSameContainer(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	if again := n.create(testConfig("c")); again != id {
		t.Errorf("another container: %s, not %s", again, id)
	}
	n.restart()
	if again := n.create(testConfig("c")); again != id {
		t.Errorf("after a restart: %s, not %s", again, id)
	}
	other := testConfig("c")
	other.Command = []string{"/other"}
	if _, err := n.Create(t.Context(), testPod(), other); !errors.Is(err, errs.Exists) {
		t.Errorf("the same name for another configuration: %v", err)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Create(t.Context(), testPod(), testConfig("c")); !errors.Is(err, errs.Exists) {
		t.Errorf("the name of a running container: %v", err)
	}
	next := testConfig("c")
	next.Metadata.Attempt = 1
	if n.create(next) == id {
		t.Error("the next attempt is the same container")
	}
}

func TestAFailedCreateLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbCreate {
			return errs.Exhausted
		}
		return nil
	}
	if _, err := n.Create(t.Context(), testPod(), testConfig("c")); !errors.Is(err, errs.Exhausted) {
		t.Fatalf("got %v", err)
	}
	left, _ := os.ReadDir(filepath.Join(n.root, "containers"))
	if len(left) != 0 || n.images.mounts() != 0 || len(n.List()) != 0 {
		t.Errorf("left over: %v, %d mounts, %d containers", left, n.images.mounts(), len(n.List()))
	}
	n.runtime.Fail = nil
	n.create(testConfig("c")) // the name is free again
}

func TestAnImageThatThePolicyRefusesIsNotUsed(t *testing.T) {
	n := newNode(t)
	var asked, namespace string
	n.images.refuse = func(a, ns string) error {
		asked, namespace = a, ns
		return image.ErrRefused
	}
	c, p := testConfig("c"), testPod()
	c.Image.UserSpecifiedImage, p.Config.Metadata.Namespace = "example.test/app:1", "team"
	if _, err := n.Create(t.Context(), p, c); !errors.Is(err, image.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if asked != "example.test/app:1" || namespace != "team" {
		t.Errorf("judged as %q in %q", asked, namespace)
	}
	c.Image.UserSpecifiedImage = ""
	if _, err := n.Create(t.Context(), p, c); !errors.Is(err, image.ErrRefused) || asked != "app" {
		t.Errorf("judged as %q, %v", asked, err)
	}
	left, _ := os.ReadDir(filepath.Join(n.root, "containers"))
	if len(left) != 0 || n.images.mounts() != 0 {
		t.Errorf("left over: %v, %d mounts", left, n.images.mounts())
	}
}

func TestBadInputIsRefused(t *testing.T) {
	n := newNode(t)
	escape := testPod()
	escape.Config.LogDirectory = t.TempDir()
	outside := testConfig("c")
	outside.LogPath = "../outside.log"
	zero, itself := testConfig("c"), testConfig("c")
	zero.LogPath, itself.LogPath = "a\x00b.log", "."
	target := testConfig("c")
	target.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
		NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER, TargetId: "other"},
	}}
	windows := testConfig("c")
	windows.Windows = &cri.WindowsContainerConfig{}
	missing := testConfig("c")
	missing.Image.Image = "nothing"
	handler := testPod()
	handler.Handler = "no-such"
	for name, c := range map[string]struct {
		pod    container.Pod
		config *cri.ContainerConfig
		want   error
	}{
		"no name":          {testPod(), &cri.ContainerConfig{Image: &cri.ImageSpec{Image: "app"}}, errs.Invalid},
		"no image":         {testPod(), &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}}, errs.Invalid},
		"nil":              {testPod(), nil, errs.Invalid},
		"unknown image":    {testPod(), missing, errs.NotFound},
		"log outside":      {escape, outside, errs.Invalid},
		"zero in the log":  {escape, zero, errs.Invalid},
		"directory as log": {escape, itself, errs.Invalid},
		"windows":          {testPod(), windows, errs.Invalid},
		"useless target":   {testPod(), target, errs.Invalid},
		"unknown handler":  {handler, testConfig("c"), errs.NotFound},
	} {
		if _, err := n.Create(t.Context(), c.pod, c.config); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestExitsWhileTheDaemonIsAwayAreKnown(t *testing.T) {
	n := newNode(t)
	ran, lost := n.started(testConfig("ran")), n.started(testConfig("lost"))
	n.stop()
	n.runtime.Exit(ran, 7, false)
	if err := n.runtime.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if st := n.get(ran).Status; st.State != container.Exited || st.ExitCode != 7 || st.Reason != "Error" {
		t.Errorf("exited: %+v", st)
	}
	if st := n.get(lost).Status; st.State != container.Exited || st.ExitCode != 255 || st.Reason != "Unknown" {
		t.Errorf("lost: %+v", st)
	}
}

func TestRecoverTakesDownWhatIsHalfMade(t *testing.T) {
	n := newNode(t)
	kept := n.create(testConfig("kept"))
	half, torn := n.create(testConfig("half")), n.create(testConfig("torn"))
	n.stop()
	if err := os.Remove(filepath.Join(n.root, "containers", half, "state.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.root, "containers", torn, "state.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if all := n.List(); len(all) != 1 || all[0].ID != kept {
		t.Errorf("containers: %v", all)
	}
	listed, _ := n.runtime.List(t.Context())
	if len(listed) != 1 || n.images.mounts() != 1 {
		t.Errorf("left over: %v, %d mounts", listed, n.images.mounts())
	}
	if problems, err := n.Check(t.Context(), false); err != nil || len(problems) != 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
	n.create(testConfig("half")) // the name is free
}

func TestCheckFindsAndRepairsStrangers(t *testing.T) {
	n := newNode(t)
	stranger := strings.Repeat("a", 64)
	if _, err := n.runtime.Create(t.Context(), runtime.CreateRequest{ID: stranger, PodID: "pod", Spec: &specs.Spec{Root: &specs.Root{Path: "/"}, Process: &specs.Process{Args: []string{"/app"}}}}); err != nil {
		t.Fatal(err)
	}
	problems, err := n.Check(t.Context(), true)
	if err != nil || len(problems) != 1 || problems[0].Object != stranger || !problems[0].Repaired {
		t.Errorf("got %+v, %v", problems, err)
	}
	if problems, err := n.Check(t.Context(), false); err != nil || len(problems) != 0 {
		t.Errorf("after the repair: %v, %v", problems, err)
	}
}

func TestExecUsesTheContainersProcessAlsoAfterARestart(t *testing.T) {
	n := newNode(t)
	var got runtime.ExecRequest
	n.runtime.OnExec = func(r runtime.ExecRequest) (runtime.ExecResult, error) {
		got = r
		return runtime.ExecResult{ExitCode: 4, Stdout: []byte("out")}, nil
	}
	c := testConfig("c")
	c.WorkingDir = "/work"
	c.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte("\xff\xfe")}}
	id := n.started(c)
	n.restart()
	result, err := n.Exec(t.Context(), id, []string{"true"}, time.Second)
	if err != nil || result.ExitCode != 4 {
		t.Fatalf("got %+v, %v", result, err)
	}
	if diff := cmp.Diff([]string{"true"}, got.Process.Args); diff != "" || got.Process.Cwd != "/work" || got.Timeout != time.Second {
		t.Errorf("request %+v", got)
	}
	if !slices.ContainsFunc(got.Env, func(e []byte) bool { return string(e) == "RAW=\xff\xfe" }) {
		t.Errorf("environment %q", got.Env)
	}
	if _, err := n.Exec(t.Context(), id, nil, 0); !errors.Is(err, errs.Invalid) {
		t.Errorf("no command: %v", err)
	}
	n.runtime.Exit(id, 0, false)
	n.await(id)
	if _, err := n.Exec(t.Context(), id, []string{"true"}, 0); !errors.Is(err, errs.Conflict) {
		t.Errorf("after the end: %v", err)
	}
}

func TestVolumesOfTheImageAreFilled(t *testing.T) {
	n := newNode(t)
	n.images.config.Volumes = map[string]struct{}{"/data": {}, "/empty": {}, "/out": {}}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.images.fill = func(rootfs string) error {
		return errors.Join(
			os.MkdirAll(filepath.Join(rootfs, "data/sub"), 0o750),
			os.WriteFile(filepath.Join(rootfs, "data/sub/file"), []byte("content"), 0o640),
			os.Symlink(secret, filepath.Join(rootfs, "data/link")),
			os.Symlink(filepath.Dir(secret), filepath.Join(rootfs, "out")),
		)
	}
	id := n.create(testConfig("c"))
	request, _ := n.runtime.Request(id)
	sources := map[string]string{}
	for _, m := range request.Spec.Mounts {
		sources[m.Destination] = m.Source
	}
	data, err := os.ReadFile(filepath.Join(sources["/data"], "sub/file"))
	if err != nil || string(data) != "content" {
		t.Errorf("file: %q, %v", data, err)
	}
	if to, err := os.Readlink(filepath.Join(sources["/data"], "link")); err != nil || to != secret {
		t.Errorf("link: %q, %v", to, err)
	}
	for _, empty := range []string{"/empty", "/out"} { // the link leads nowhere inside of the image
		if entries, err := os.ReadDir(sources[empty]); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v", empty, entries, err)
		}
	}
}

func TestUsersAreReadFromTheImageOnly(t *testing.T) {
	n := newNode(t)
	n.images.config.User = "app"
	n.images.fill = func(rootfs string) error {
		return errors.Join(
			os.Mkdir(filepath.Join(rootfs, "etc"), 0o755),
			os.WriteFile(filepath.Join(rootfs, "etc/passwd"), []byte("app:x:77:78::/home:/bin/sh\n"), 0o644),
			os.Symlink("/etc/group.real", filepath.Join(rootfs, "etc/group")),
			os.WriteFile(filepath.Join(rootfs, "etc/group.real"), []byte("extra:x:79:app\n"), 0o644),
		)
	}
	user := n.get(n.create(testConfig("c"))).User.GetLinux()
	if user.Uid != 77 || user.Gid != 78 || !slices.Contains(user.SupplementalGroups, 79) {
		t.Errorf("user %v", user)
	}
	n.images.fill = func(rootfs string) error {
		return errors.Join(os.Mkdir(filepath.Join(rootfs, "etc"), 0o755), os.Mkdir(filepath.Join(rootfs, "etc/passwd"), 0o755))
	}
	if _, err := n.Create(t.Context(), testPod(), testConfig("d")); !errors.Is(err, errs.Invalid) {
		t.Errorf("passwd that is no file: %v", err)
	}
}
