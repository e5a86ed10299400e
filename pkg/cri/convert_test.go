package cri

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
)

func TestVersionsAreSemantic(t *testing.T) {
	for build, want := range map[string]string{
		"v1.2.3":                 "1.2.3",
		"1.2.3-rc.1":             "1.2.3-rc.1",
		"v0.1.0-3-gabc123-dirty": "0.1.0-3-gabc123-dirty",
		"v1.2.3+build.7":         "1.2.3+build.7",
		"":                       "0.0.0",
		"devel":                  "0.0.0+devel",
		"0512345-dirty":          "0.0.0+0512345-dirty",
		"v1.2":                   "0.0.0+v1-2",
		"v01.2.3":                "0.0.0+v01-2-3",
		"v1.2.3 (me)":            "0.0.0+v1-2-3-me-",
	} {
		got := semantic(build)
		if got != want || !semver.MatchString(got) {
			t.Errorf("%q: got %q, want %q", build, got, want)
		}
	}
}

func TestTheUserOfAnImageIsANumberOrAName(t *testing.T) {
	for user, want := range map[string]struct {
		uid  *runtimeapi.Int64Value
		name string
	}{
		"":                {uid: &runtimeapi.Int64Value{}},
		":5":              {uid: &runtimeapi.Int64Value{}},
		"0":               {uid: &runtimeapi.Int64Value{}},
		"1000":            {uid: &runtimeapi.Int64Value{Value: 1000}},
		"1000:2000":       {uid: &runtimeapi.Int64Value{Value: 1000}},
		"2147483647":      {uid: &runtimeapi.Int64Value{Value: math.MaxInt32}},
		"nobody":          {name: "nobody"},
		"nobody:nogroup":  {name: "nobody"},
		"-1":              {name: "-1"},
		"2147483648":      {name: "2147483648"}, // cannot be verified not to be root
		"4294967296":      {name: "4294967296"},
		"0x0":             {name: "0x0"},
		"99999999999999:": {name: "99999999999999"},
	} {
		uid, name := imageUser(user)
		if name != want.name || !cmp.Equal(uid, want.uid, protocmp.Transform()) {
			t.Errorf("%q: got %v, %q", user, uid, name)
		}
	}
}

func TestAnImageIsCalledAsItsUserKnowsIt(t *testing.T) {
	const id = "sha256:0123"
	tagged := image.Image{
		ID: id, RepoTags: []string{"docker.io/library/app:1", "docker.io/library/app:2"}, RepoDigests: []string{"docker.io/library/app@sha256:" + strings.Repeat("a", 64)},
	}
	for name, c := range map[string]struct {
		image image.Image
		asked *runtimeapi.ImageSpec
		want  string
	}{
		"by id, as kubelet does": {tagged, &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "app:2"}, "docker.io/library/app:2"},
		"by digest":              {tagged, &runtimeapi.ImageSpec{Image: tagged.RepoDigests[0]}, tagged.RepoDigests[0]},
		"by another's name":      {tagged, &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "gone:1"}, "docker.io/library/app:1"},
		"by id alone":            {tagged, &runtimeapi.ImageSpec{Image: id}, "docker.io/library/app:1"},
		"without a tag":          {image.Image{ID: id, RepoDigests: tagged.RepoDigests}, &runtimeapi.ImageSpec{Image: id}, tagged.RepoDigests[0]},
		"without a name":         {image.Image{ID: id}, &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "app:1"}, id},
		"by nothing":             {image.Image{ID: id}, nil, ""},
	} {
		got := imageSpec(c.image, c.asked)
		if got.GetImage() != c.want || got.GetUserSpecifiedImage() != c.asked.GetUserSpecifiedImage() {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

func TestWhatAnImageWasAskedForWithStaysInTheStatus(t *testing.T) {
	asked := &runtimeapi.ImageSpec{
		Image: "sha256:0123", Annotations: map[string]string{"a": "1"}, UserSpecifiedImage: "app:1", RuntimeHandler: "berth", ImageRef: "sha256:0123",
	}
	want := proto.CloneOf(asked)
	want.Image = "docker.io/library/app:1"
	got := imageSpec(image.Image{ID: "sha256:0123", RepoTags: []string{want.Image}}, asked)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAnImageHasEveryField(t *testing.T) {
	i := image.Image{
		ID: "sha256:0123", RepoTags: []string{"a:1"}, RepoDigests: []string{"a@sha256:4567"}, Size: 9, Pinned: true, Annotations: map[string]string{"of": "the manifest"},
	}
	i.Config.Config.User = "1000:5"
	want := &runtimeapi.Image{
		Id: "sha256:0123", RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Size: 9, Pinned: true, Uid: &runtimeapi.Int64Value{Value: 1000},
		Spec: &runtimeapi.ImageSpec{Image: "sha256:0123", Annotations: i.Annotations, RuntimeHandler: "crun"},
	}
	if diff := cmp.Diff(want, criImage(i, "crun"), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestVersionNamesTheInterfacesAndOurOwn(t *testing.T) {
	got, err := (&Node{Build: "v1.2.3"}).Version(t.Context(), &runtimeapi.VersionRequest{Version: "0.1.0"})
	want := &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "berth", RuntimeVersion: "1.2.3", RuntimeApiVersion: "v1"}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestFiltersSelectByPrefixStateAndExactLabels(t *testing.T) {
	c := &runtimeapi.Container{Id: "abc", PodSandboxId: "p1", State: runtimeapi.ContainerState_CONTAINER_RUNNING, Labels: map[string]string{"a": "1", "b": ""}}
	s := &runtimeapi.PodSandbox{Id: "abc", State: runtimeapi.PodSandboxState_SANDBOX_READY, Labels: c.Labels}
	state := func(n int32) *runtimeapi.ContainerStateValue {
		return &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState(n)}
	}
	for name, f := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   bool
	}{
		"none":             {nil, true},
		"empty":            {&runtimeapi.ContainerFilter{}, true},
		"id":               {&runtimeapi.ContainerFilter{Id: "abc"}, true},
		"beginning of id":  {&runtimeapi.ContainerFilter{Id: "ab"}, true},
		"another id":       {&runtimeapi.ContainerFilter{Id: "b"}, false},
		"labels":           {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"a": "1", "b": ""}}, true},
		"another label":    {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"a": "1", "c": ""}}, false},
		"another value":    {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"a": "11"}}, false},
		"all but the id":   {&runtimeapi.ContainerFilter{Id: "x", LabelSelector: map[string]string{"a": "1"}}, false},
		"pod":              {&runtimeapi.ContainerFilter{PodSandboxId: "p"}, true},
		"another pod":      {&runtimeapi.ContainerFilter{PodSandboxId: "p2"}, false},
		"state":            {&runtimeapi.ContainerFilter{State: state(int32(c.State))}, true},
		"the zeroth state": {&runtimeapi.ContainerFilter{State: state(0)}, false},
	} {
		if got := matchesContainer(c, f.filter); got != f.want {
			t.Errorf("container, %s: got %t", name, got)
		}
		if f.filter.GetPodSandboxId() != "" || f.filter.GetState() != nil || f.filter == nil {
			continue
		}
		if got := matchesSandbox(s, &runtimeapi.PodSandboxFilter{Id: f.filter.Id, LabelSelector: f.filter.LabelSelector}); got != f.want {
			t.Errorf("pod, %s: got %t", name, got)
		}
	}
	for state, want := range map[runtimeapi.PodSandboxState]bool{runtimeapi.PodSandboxState_SANDBOX_READY: true, runtimeapi.PodSandboxState_SANDBOX_NOTREADY: false} {
		if got := matchesSandbox(s, &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{State: state}}); got != want {
			t.Errorf("pod, %s: got %t", state, got)
		}
	}
}

func TestAContainersStatusHasEveryField(t *testing.T) {
	at := time.Unix(100, 7)
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: 3}, Image: &runtimeapi.ImageSpec{Image: "sha256:01", UserSpecifiedImage: "app:1"},
		Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "\n"}, Mounts: []*runtimeapi.Mount{{ContainerPath: "/m", HostPath: "/h"}},
	}
	user := &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1, Gid: 2, SupplementalGroups: []int64{3}}}
	resources := &runtimeapi.LinuxContainerResources{CpuShares: 512}
	got := containerStatus(&container.Container{
		ID: "id", PodID: "pod", Config: config, ImageID: "sha256:01", LogPath: "/log/c/3.log", User: user,
		StopSignal: runtimeapi.Signal_SIGNAL_SIGINT, CreatedAt: at,
		Status: container.Status{
			State: container.Exited, StartedAt: at.Add(1), FinishedAt: at.Add(2), ExitCode: 137, Reason: "OOMKilled", Message: "m", Resources: resources,
		},
	})
	want := &runtimeapi.ContainerStatus{
		Id: "id", Metadata: config.Metadata, State: runtimeapi.ContainerState_CONTAINER_EXITED,
		CreatedAt: at.UnixNano(), StartedAt: at.UnixNano() + 1, FinishedAt: at.UnixNano() + 2, ExitCode: 137,
		Image: config.Image, ImageRef: "sha256:01", ImageId: "sha256:01", Reason: "OOMKilled", Message: "m",
		Labels: config.Labels, Annotations: config.Annotations, Mounts: config.Mounts, LogPath: "/log/c/3.log",
		Resources: &runtimeapi.ContainerResources{Linux: resources}, User: user, StopSignal: runtimeapi.Signal_SIGNAL_SIGINT,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	created := containerStatus(&container.Container{CreatedAt: at, Status: container.Status{State: container.Created}})
	if created.StartedAt != 0 || created.FinishedAt != 0 || created.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("what has not been: %v", created)
	}
}

func TestAPodsStatusHasEveryField(t *testing.T) {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	s := &pod.Sandbox{
		ID: "id", Handler: "berth", CreatedAt: time.Unix(5, 0), State: pod.Ready,
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
		Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u", Attempt: 2},
			Labels:   map[string]string{"l": "1"}, Annotations: map[string]string{"a": "1"},
			Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
		},
	}
	want := &runtimeapi.PodSandboxStatus{
		Id: "id", Metadata: s.Config.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: 5e9,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.2", AdditionalIps: []*runtimeapi.PodIP{{Ip: "fd00::2"}}},
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: options}},
		Labels:  s.Config.Labels, Annotations: s.Config.Annotations, RuntimeHandler: "berth",
	}
	if diff := cmp.Diff(want, sandboxStatus(s), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	ended := *s
	ended.State = pod.NotReady
	got := sandboxStatus(&ended)
	if got.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY || got.Network.Ip != "" || len(got.Network.AdditionalIps) != 0 {
		t.Errorf("a pod that has ended still has %v", got.Network)
	}
}

func TestSecondsAreBounded(t *testing.T) {
	for n, want := range map[int64]time.Duration{0: 0, -1: 0, math.MinInt64: 0, 30: 30 * time.Second} {
		if got := seconds(n); got != want {
			t.Errorf("%d: got %s", n, got)
		}
	}
	if got := seconds(math.MaxInt64); got < 290*365*24*time.Hour {
		t.Errorf("the longest is %s", got)
	}
}

func TestOnlyTheAbsenceOfTheObjectItselfIsSuccess(t *testing.T) {
	gone := fmt.Errorf("pod x: %w", errs.NotFound)
	if err := idempotent(gone, true); err != nil {
		t.Errorf("a pod that is gone: %v", err)
	}
	err := idempotent(fmt.Errorf("plugin bridge: %w", errs.NotFound), false)
	if err == nil || errs.Of(err) != "" {
		t.Errorf("a plugin that is gone: %v of kind %q", err, errs.Of(err))
	}
	if err := idempotent(errs.Conflict, true); !errors.Is(err, errs.Conflict) {
		t.Errorf("another error: %v", err)
	}
	if err := idempotent(nil, true); err != nil {
		t.Error(err)
	}
}

func TestAnUnreachableRegistryIsNotOurOwnUnavailability(t *testing.T) {
	err := pullError(fmt.Errorf("no route: %w", errs.Unavailable))
	if !strings.HasPrefix(err.Error(), "RegistryUnavailable: ") || errs.Of(err) != "" {
		t.Errorf("got %v of kind %q", err, errs.Of(err))
	}
	if err := pullError(errs.Denied); !errors.Is(err, errs.Denied) {
		t.Errorf("another error: %v", err)
	}
}

type fakeNetwork struct{ err error }

func (f fakeNetwork) Status(context.Context) error { return f.err }
func (f fakeNetwork) Info() map[string]string      { return map[string]string{"network": "fake"} }

func (f fakeNetwork) SetPodCIDR(_ context.Context, cidr string) error {
	if cidr == "bad" {
		return errs.Invalid
	}
	return f.err
}

func TestStatusTellsWhatIsNotReady(t *testing.T) {
	down := &runtimetest.Fake{Fail: func(verb, _ string) error {
		if verb == runtime.VerbVersion {
			return errs.Unavailable
		}
		return nil
	}}
	for name, c := range map[string]struct {
		node                 Node
		runtime, network     bool
		inRuntime, inNetwork string // the messages
	}{
		"ready":          {Node{Runtime: &runtimetest.Fake{}, Network: fakeNetwork{}, CgroupDriver: "cgroupfs"}, true, true, "", ""},
		"no runtime":     {Node{Runtime: down, Network: fakeNetwork{}, CgroupDriver: "cgroupfs"}, false, true, "does not answer", ""},
		"another driver": {Node{Runtime: &runtimetest.Fake{}, Network: fakeNetwork{}, CgroupDriver: "systemd"}, false, true, "make them agree", ""},
		"no network":     {Node{Runtime: &runtimetest.Fake{}, Network: fakeNetwork{errors.New("no conf")}, CgroupDriver: "cgroupfs"}, true, false, "", "no conf"},
	} {
		resp, err := c.node.Status(t.Context(), &runtimeapi.StatusRequest{})
		if err != nil || len(resp.Info) != 0 {
			t.Fatalf("%s: %v, %v", name, err, resp)
		}
		r, n := resp.Status.Conditions[0], resp.Status.Conditions[1]
		if r.Type != "RuntimeReady" || r.Status != c.runtime || !strings.Contains(r.Message, c.inRuntime) || (r.Reason == "") != c.runtime {
			t.Errorf("%s: %v", name, r)
		}
		if n.Type != "NetworkReady" || n.Status != c.network || !strings.Contains(n.Message, c.inNetwork) || !c.network && n.Reason != "NetworkPluginNotReady" {
			t.Errorf("%s: %v", name, n)
		}
	}
}

func TestStatusNamesHandlersAndFeatures(t *testing.T) {
	n := Node{
		Runtime: &runtimetest.Fake{}, Network: fakeNetwork{}, CgroupDriver: "cgroupfs", Info: map[string]any{"host": 1},
		Handlers: func(context.Context) []Handler {
			return []Handler{{Name: "", RecursiveReadOnly: true}, {Name: "berth", RecursiveReadOnly: true, UserNamespaces: true}, {Name: "crun", Err: errors.New("no crun")}}
		},
	}
	resp, err := n.Status(t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []*runtimeapi.RuntimeHandler{
		{Name: "", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
		{Name: "berth", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}},
		{Name: "crun", Features: &runtimeapi.RuntimeHandlerFeatures{}},
	}
	for _, c := range resp.Status.Conditions {
		if missing := c.Type == "RuntimeHandlersReady"; c.Status == missing || missing != strings.Contains(c.Message, "no crun") {
			t.Errorf("condition %v", c)
		}
	}
	if diff := cmp.Diff(want, resp.RuntimeHandlers, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if f := resp.Features; !f.SupplementalGroupsPolicy || !f.UserNamespacesHostNetwork || !f.MountOptions {
		t.Errorf("features %v", f)
	}
	if resp.Info["host"] != "1" || resp.Info["cni"] != `{"network":"fake"}` || !strings.Contains(resp.Info["runtime"], `"fake"`) {
		t.Errorf("info %v", resp.Info)
	}
}

func TestThePodCIDRReachesTheNetwork(t *testing.T) {
	n := &Node{Network: fakeNetwork{}}
	for cidr, want := range map[string]error{"": nil, "10.1.0.0/16": nil, "bad": errs.Invalid} {
		config := &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: cidr}}
		if _, err := n.UpdateRuntimeConfig(t.Context(), &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: config}); !errors.Is(err, want) {
			t.Errorf("%q: %v", cidr, err)
		}
	}
	if _, err := n.UpdateRuntimeConfig(t.Context(), &runtimeapi.UpdateRuntimeConfigRequest{}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestRuntimeConfigNamesTheCgroupDriver(t *testing.T) {
	for driver, want := range map[string]runtimeapi.CgroupDriver{"systemd": runtimeapi.CgroupDriver_SYSTEMD, "cgroupfs": runtimeapi.CgroupDriver_CGROUPFS} {
		resp, err := (&Node{CgroupDriver: driver}).RuntimeConfig(t.Context(), nil)
		if err != nil || resp.Linux.CgroupDriver != want {
			t.Errorf("%s: %v, %v", driver, resp, err)
		}
	}
}

func TestOutputFitsIntoAMessage(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ stdout, stderr, wantOut, wantErr int }{
		{5, 7, 5, 7},
		{16 * mib, 0, 16*mib - 64, 0},
		{16 * mib, mib, 15*mib - 64, mib},
		{mib, 16 * mib, mib, 15*mib - 64},
		{16 * mib, 16 * mib, 8*mib - 32, 8*mib - 32},
		{16*mib - 64, 0, 16*mib - 64, 0},
	} {
		stdout, stderr := fit(make([]byte, c.stdout), make([]byte, c.stderr))
		if len(stdout) != c.wantOut || len(stderr) != c.wantErr {
			t.Errorf("%d and %d: got %d and %d", c.stdout, c.stderr, len(stdout), len(stderr))
		}
		m := &runtimeapi.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: math.MinInt32}
		if n := proto.Size(m); n > 16*mib {
			t.Errorf("%d and %d: the message has %d bytes", c.stdout, c.stderr, n)
		}
	}
}
