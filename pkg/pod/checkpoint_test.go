package pod_test

import (
	"errors"
	"os"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime"
)

// pair is a pod of two containers that run.
func (n *node) pair(name string) (id string, containers []string) {
	n.t.Helper()
	id = n.run(testConfig(name))
	for _, c := range []string{"a", "b"} {
		cid := n.create(id, c)
		if err := n.containers.Start(n.t.Context(), cid); err != nil {
			n.t.Fatal(err)
		}
		containers = append(containers, cid)
	}
	return id, containers
}

func TestAPodIsRestoredFromItsCheckpoint(t *testing.T) {
	n := newNode(t)
	id, containers := n.pair("p")
	dir := t.TempDir()
	if err := n.Checkpoint(t.Context(), id, dir, containers); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	again, restored, err := n.Restore(t.Context(), dir, testConfig("p2"), "", []*cri.ContainerConfig{containerConfig("b"), containerConfig("a")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil { // it is not needed any more
		t.Fatal(err)
	}
	if p := n.get(again); p.State != pod.Ready || len(p.IPs) == 0 || len(restored) != 2 || restored[0].Name != "b" || restored[1].Name != "a" {
		t.Fatalf("pod %+v, containers %v", p, restored)
	}
	for _, r := range restored {
		c, err := n.containers.Get(r.ID)
		if err != nil || c.Status.State != container.Created || c.PodID != again || c.Config.Metadata.Name != r.Name {
			t.Fatalf("restored: %+v, %v", c, err)
		}
		if err := n.containers.Start(t.Context(), r.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestAFailedCheckpointLeavesAnEmptyDirectory(t *testing.T) {
	n := newNode(t)
	id, containers := n.pair("p")
	n.runtime.Fail = func(verb, id string) error {
		if verb == runtime.VerbCheckpoint && id == containers[1] {
			return errs.Exhausted
		}
		return nil
	}
	dir := t.TempDir()
	if err := n.Checkpoint(t.Context(), id, dir, containers); !errors.Is(err, errs.Exhausted) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestASelectionThatIsWrongIsRefused(t *testing.T) {
	n := newNode(t)
	id, containers := n.pair("p")
	other, others := n.pair("q")
	created := n.create(id, "c")
	for what, c := range map[string]struct {
		pod      string
		selected []string
		want     error
	}{
		"nothing":            {id, nil, errs.Invalid},
		"one twice":          {id, []string{containers[0], containers[0]}, errs.Invalid},
		"of another pod":     {id, []string{containers[0], others[0]}, errs.Invalid},
		"unknown":            {id, []string{"none"}, errs.Invalid},
		"not running":        {id, []string{created}, errs.Conflict},
		"an unknown pod":     {"none", containers, errs.NotFound},
		"another's, for all": {other, containers, errs.Invalid},
	} {
		dir := t.TempDir()
		err := n.Checkpoint(t.Context(), c.pod, dir, c.selected)
		if left, _ := os.ReadDir(dir); !errors.Is(err, c.want) || len(left) != 0 {
			t.Errorf("%s: %v, left %v", what, err, left)
		}
	}
	if err := n.Checkpoint(t.Context(), id, "relative", containers); !errors.Is(err, errs.Invalid) {
		t.Errorf("a relative directory: %v", err)
	}
	if err := n.Stop(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if err := n.Checkpoint(t.Context(), other, t.TempDir(), others); !errors.Is(err, errs.Conflict) {
		t.Errorf("a stopped pod: %v", err)
	}
}

func TestAFailedRestoreLeavesNothing(t *testing.T) {
	n := newNode(t)
	id, containers := n.pair("p")
	dir := t.TempDir()
	if err := n.Checkpoint(t.Context(), id, dir, containers); err != nil {
		t.Fatal(err)
	}
	other := containerConfig("b")
	other.Args = []string{"another"}
	for what, c := range map[string]struct {
		dir        string
		handler    string
		containers []*cri.ContainerConfig
		want       error
	}{
		"a container less":   {dir, "", []*cri.ContainerConfig{containerConfig("a")}, errs.Invalid},
		"a container more":   {dir, "", []*cri.ContainerConfig{containerConfig("a"), containerConfig("b"), containerConfig("c")}, errs.Invalid},
		"one twice":          {dir, "", []*cri.ContainerConfig{containerConfig("a"), containerConfig("a")}, errs.Invalid},
		"none":               {dir, "", nil, errs.Invalid},
		"another program":    {dir, "", []*cri.ContainerConfig{containerConfig("a"), other}, errs.Invalid},
		"no checkpoint":      {t.TempDir(), "", []*cri.ContainerConfig{containerConfig("a")}, errs.Invalid},
		"an unknown handler": {dir, "kata", []*cri.ContainerConfig{containerConfig("a"), containerConfig("b")}, errs.NotFound},
	} {
		if _, _, err := n.Restore(t.Context(), c.dir, testConfig("q"), c.handler, c.containers); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if pods, all := n.List(), n.containers.List(); len(pods) != 1 || len(all) != 2 || len(n.network.attached) != 1 {
			t.Fatalf("%s: %d pods, %d containers, %d attachments are left", what, len(pods), len(all), len(n.network.attached))
		}
	}
	if _, _, err := n.Restore(t.Context(), dir, testConfig("p"), "", []*cri.ContainerConfig{containerConfig("a"), containerConfig("b")}); !errors.Is(err, errs.Exists) {
		t.Errorf("the name of a pod that is there: %v", err)
	}
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbCanCheckpoint {
			return errs.Unsupported
		}
		return nil
	}
	if _, _, err := n.Restore(t.Context(), dir, testConfig("q"), "", []*cri.ContainerConfig{containerConfig("a"), containerConfig("b")}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("without CRIU: %v", err)
	}
}
