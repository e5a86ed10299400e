package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func code(err error) codes.Code { return status.Code(err) }

func wantText(got, want string) error {
	if !strings.Contains(got, want) {
		return fmt.Errorf("%q has no %q", got, want)
	}
	return nil
}

func TestVersionAndConfiguration(t *testing.T) {
	v, err := berth.Runtime.Version(t.Context(), &cri.VersionRequest{})
	if err != nil || v.Version != "0.1.0" || v.RuntimeName != "berth" || v.RuntimeApiVersion != "v1" || strings.Count(v.RuntimeVersion, ".") < 2 {
		t.Errorf("version %v, %v", v, err)
	}
	c, err := berth.Runtime.RuntimeConfig(t.Context(), &cri.RuntimeConfigRequest{})
	if err != nil || c.Linux.CgroupDriver != cri.CgroupDriver_CGROUPFS {
		t.Errorf("configuration %v, %v", c, err)
	}
}

func TestStatusTellsConditionsHandlersAndFeatures(t *testing.T) {
	r, err := berth.Runtime.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Status.Conditions {
		if !c.Status {
			t.Errorf("condition %v", c)
		}
	}
	if len(r.RuntimeHandlers) < 2 || !r.RuntimeHandlers[0].Features.RecursiveReadOnlyMounts || !r.Features.SupplementalGroupsPolicy || !r.Features.MountOptions || len(r.Info) == 0 {
		t.Errorf("status %v", r)
	}
}

func TestCheckpointsAreRefusedWithoutCRIU(t *testing.T) {
	if criuWorks() {
		t.Skip("CRIU is here, and works")
	}
	p := runPod(t)
	c := p.start(sh("exec sleep 1000"))
	dir := t.TempDir()
	_, err := berth.Runtime.CheckpointPod(t.Context(), &cri.CheckpointPodRequest{PodSandboxId: p.id, OutputPath: dir, ContainerIds: []string{c.id}})
	if code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "CRIU") {
		t.Errorf("pod: %v", err)
	}
	_, err = berth.Runtime.CheckpointContainer(t.Context(), &cri.CheckpointContainerRequest{ContainerId: c.id, Location: filepath.Join(dir, "c.tar")})
	if code(err) != codes.Unimplemented {
		t.Errorf("container: %v", err)
	}
	_, err = berth.Runtime.RestorePod(t.Context(), &cri.RestorePodRequest{CheckpointPath: dir, Config: p.config})
	if code(err) != codes.Unimplemented {
		t.Errorf("restore: %v", err)
	}
	_, err = berth.Runtime.CheckpointPod(t.Context(), &cri.CheckpointPodRequest{PodSandboxId: p.id, OutputPath: dir, ContainerIds: []string{c.id}, Options: map[string]string{"x": ""}})
	if code(err) != codes.InvalidArgument {
		t.Errorf("an option: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestAPodKeepsWhatItWasGiven(t *testing.T) {
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Metadata.Attempt = 7
		c.Labels = map[string]string{"app": "x", "empty": ""}
		c.Annotations = map[string]string{"a/b": "c\nd", "ü": "ß"}
	})
	s := p.status()
	if diff := cmp.Diff(p.config.Metadata, s.Metadata, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !cmp.Equal(p.config.Labels, s.Labels) || !cmp.Equal(p.config.Annotations, s.Annotations) || s.State != cri.PodSandboxState_SANDBOX_READY || s.CreatedAt == 0 {
		t.Errorf("status %v", s)
	}
	if s.Linux.Namespaces.Options.Network != cri.NamespaceMode_NODE || s.Network.Ip != "" {
		t.Errorf("namespaces %v, network %v", s.Linux.Namespaces, s.Network)
	}
}

func TestPodsAreFilteredByIDStateAndLabels(t *testing.T) {
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"filter": "pods", "n": "1"} })
	stopped := runPod(t, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"filter": "pods", "n": "2"} })
	if _, err := berth.Runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: stopped.id}); err != nil {
		t.Fatal(err)
	}
	label := map[string]string{"filter": "pods"}
	for name, c := range map[string]struct {
		filter *cri.PodSandboxFilter
		want   []string
	}{
		"labels":       {&cri.PodSandboxFilter{LabelSelector: label}, []string{stopped.id, p.id}},
		"more labels":  {&cri.PodSandboxFilter{LabelSelector: map[string]string{"filter": "pods", "n": "1"}}, []string{p.id}},
		"wrong value":  {&cri.PodSandboxFilter{LabelSelector: map[string]string{"filter": "pod"}}, nil},
		"id prefix":    {&cri.PodSandboxFilter{Id: p.id[:13]}, []string{p.id}},
		"ready":        {&cri.PodSandboxFilter{LabelSelector: label, State: &cri.PodSandboxStateValue{}}, []string{p.id}},
		"not ready":    {&cri.PodSandboxFilter{LabelSelector: label, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_NOTREADY}}, []string{stopped.id}},
		"id and label": {&cri.PodSandboxFilter{Id: p.id, LabelSelector: map[string]string{"n": "2"}}, nil},
	} {
		r, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range r.Items {
			got = append(got, s.Id)
		}
		if !cmp.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestAContainerLivesThroughItsStates(t *testing.T) {
	p := runPod(t)
	config := sh("echo out; echo err >&2; exit 3")
	config.Labels, config.Annotations = map[string]string{"k": "v"}, map[string]string{"x": "y"}
	config.Metadata.Attempt = 2
	c := p.create(config)
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_CREATED || s.CreatedAt == 0 || s.StartedAt != 0 || s.FinishedAt != 0 {
		t.Errorf("created: %v", s)
	}
	c.start()
	s := c.await()
	if s.ExitCode != 3 || s.Reason != "Error" || s.StartedAt < s.CreatedAt || s.FinishedAt < s.StartedAt {
		t.Errorf("exited: %v", s)
	}
	if !cmp.Equal(s.Labels, config.Labels) || !cmp.Equal(s.Annotations, config.Annotations) || !proto.Equal(s.Metadata, config.Metadata) {
		t.Errorf("given: %v", s)
	}
	if s.ImageRef != s.ImageId || s.Image.Image != busybox || s.LogPath == "" || s.StopSignal != cri.Signal_SIGNAL_SIGTERM {
		t.Errorf("image and log: %v", s)
	}
	if got := c.written(); got != "out\nerr" && got != "err\nout" {
		t.Errorf("log %q", got)
	}
	for range 2 {
		if _, err := berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
			t.Error(err)
		}
	}
	if _, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id}); code(err) != codes.NotFound {
		t.Errorf("after removal: %v", err)
	}
}

func TestContainersAreFiltered(t *testing.T) {
	p, q := runPod(t), runPod(t)
	labelled := sleeper()
	labelled.Labels = map[string]string{"filter": "containers"}
	running, created, other := p.start(labelled), p.create(sleeper()), q.start(sleeper())
	state := func(s cri.ContainerState) *cri.ContainerStateValue { return &cri.ContainerStateValue{State: s} }
	for name, c := range map[string]struct {
		filter *cri.ContainerFilter
		want   []string
	}{
		"pod":         {&cri.ContainerFilter{PodSandboxId: p.id}, []string{created.id, running.id}},
		"pod prefix":  {&cri.ContainerFilter{PodSandboxId: q.id[:13]}, []string{other.id}},
		"id prefix":   {&cri.ContainerFilter{Id: created.id[:13]}, []string{created.id}},
		"state":       {&cri.ContainerFilter{PodSandboxId: p.id, State: state(cri.ContainerState_CONTAINER_RUNNING)}, []string{running.id}},
		"labels":      {&cri.ContainerFilter{LabelSelector: labelled.Labels}, []string{running.id}},
		"nothing":     {&cri.ContainerFilter{Id: "0000000000000"}, nil},
		"other state": {&cri.ContainerFilter{PodSandboxId: q.id, State: state(cri.ContainerState_CONTAINER_EXITED)}, nil},
	} {
		r, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range r.Containers {
			got = append(got, s.Id)
			if s.ImageRef == "" || s.ImageId != s.ImageRef || s.Image.UserSpecifiedImage != busybox {
				t.Errorf("%s: %v", name, s)
			}
		}
		if !cmp.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestRepeatedAndConcurrentCallsReturnTheSame(t *testing.T) {
	p := runPod(t)
	again, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil || again.PodSandboxId != p.id {
		t.Errorf("repeated RunPodSandbox: %v, %v", again, err)
	}
	config := sleeper()
	inherit(config, p.config)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			r, err := berth.Runtime.CreateContainer(t.Context(), p.request(config))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.ContainerId
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("eight calls at once made %v", ids)
		}
	}
	other := proto.Clone(config).(*cri.ContainerConfig)
	other.Command = []string{"/bin/true"}
	if _, err := berth.Runtime.CreateContainer(t.Context(), p.request(other)); code(err) != codes.AlreadyExists {
		t.Errorf("the same name for another configuration: %v", err)
	}
}

func TestStopAndRemoveAreIdempotent(t *testing.T) {
	p := runPod(t, own)
	c := p.start(sh("exec sleep 1000"))
	for range 2 {
		c.stop(0)
		if _, err := berth.Runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if _, err := berth.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Error(err)
		}
		c.stop(0)
	}
	if _, err := berth.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id}); code(err) != codes.NotFound {
		t.Errorf("after removal: %v", err)
	}
}

func TestStopSendsTheSignalThenKills(t *testing.T) {
	p := runPod(t)
	polite := p.start(sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
	eventually(t, func() error { return wantText(polite.written(), "ready") })
	polite.stop(20)
	if s := polite.status(); s.ExitCode != 5 || !strings.Contains(polite.written(), "bye") {
		t.Errorf("polite: %v", s)
	}
	config := sh("trap 'echo hup; exit 6' HUP; echo ready; while :; do sleep 0.05; done")
	config.StopSignal = cri.Signal_SIGNAL_SIGHUP
	hup := p.start(config)
	eventually(t, func() error { return wantText(hup.written(), "ready") })
	hup.stop(20)
	if s := hup.status(); s.ExitCode != 6 || s.StopSignal != cri.Signal_SIGNAL_SIGHUP {
		t.Errorf("other signal: %v", s)
	}
	stubborn := p.start(sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
	eventually(t, func() error { return wantText(stubborn.written(), "ready") })
	begin := time.Now()
	stubborn.stop(1)
	if s := stubborn.status(); s.ExitCode != 137 || time.Since(begin) < time.Second {
		t.Errorf("stubborn: %v after %s", s, time.Since(begin))
	}
}

func TestStopLeavesWhatHasNotStarted(t *testing.T) {
	c := runPod(t).create(sh("exit 3"))
	for _, grace := range []int64{0, 30} {
		c.stop(grace)
	}
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_CREATED {
		t.Errorf("after the stop: %v", s)
	}
	c.start()
	if s := c.await(); s.ExitCode != 3 {
		t.Errorf("after the start: %v", s)
	}
}

func TestARepeatedStopSendsTheSignalOnce(t *testing.T) {
	p := runPod(t)
	c := p.start(sh("trap 'echo term' TERM; echo ready; while :; do sleep 0.02; done"))
	eventually(t, func() error { return wantText(c.written(), "ready") })
	for range 2 { // kubelet restarts, and asks again
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := berth.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 600})
		cancel()
		if code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	}
	c.stop(1)
	if got := c.written(); got != "ready\nterm" {
		t.Errorf("wrote %q", got)
	}
}

func TestStopPodKillsItsContainers(t *testing.T) {
	p := runPod(t)
	a, b := p.start(sleeper()), p.create(sleeper())
	if _, err := berth.Runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ctr{a, b} {
		if s := c.status(); s.State != cri.ContainerState_CONTAINER_EXITED {
			t.Errorf("%v", s)
		}
	}
	if err := p.createError(sleeper()); code(err) != codes.FailedPrecondition {
		t.Errorf("a container in a stopped pod: %v", err)
	}
	if _, err := berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: b.id}); code(err) != codes.FailedPrecondition {
		t.Errorf("a start in a stopped pod: %v", err)
	}
}

func TestUnknownHandlersAndProgramsAreClearErrors(t *testing.T) {
	_, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig(t), RuntimeHandler: "kata"})
	if code(err) != codes.NotFound || !strings.Contains(err.Error(), "kata") {
		t.Errorf("handler: %v", err)
	}
	p := runPod(t)
	for _, program := range []string{"/no/such/program", "no-such-program", "./bin", "/etc/passwd"} {
		missing := sh("")
		missing.Command = []string{program}
		if err := p.createError(missing); code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), program) {
			t.Errorf("program %s: %v", program, err)
		}
	}
	image := sh("")
	image.Image.Image = "e2e.local/none:1"
	if err := p.createError(image); code(err) != codes.NotFound {
		t.Errorf("image: %v", err)
	}
}

func TestReasonsOfTheEnd(t *testing.T) {
	p := runPod(t)
	if s := p.start(sh("exit 0")).await(); s.Reason != "Completed" {
		t.Errorf("%v", s)
	}
	oom := sh("tail /dev/zero")
	oom.Linux.Resources.MemoryLimitInBytes = 16 << 20
	if s := p.start(oom).await(); s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("%v", s)
	}
}

func TestTheDaemonRestartsUnnoticed(t *testing.T) {
	p := runPod(t, own)
	c := p.start(sh("i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"))
	done := p.start(sh("sleep 0.3; exit 9"))
	before, was := c.status(), p.status()
	if err := berth.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := berth.Start(); err != nil {
		t.Fatal(err)
	}
	after := c.status()
	if diff := cmp.Diff(before, after, protocmp.Transform()); diff != "" {
		t.Errorf("container: %s", diff)
	}
	if diff := cmp.Diff(was, p.status(), protocmp.Transform()); diff != "" {
		t.Errorf("pod: %s", diff)
	}
	if s := done.await(); s.ExitCode != 9 {
		t.Errorf("ended meanwhile: %v", s)
	}
	if out := c.sh("echo still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
}
