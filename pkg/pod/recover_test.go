package pod_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/pod"
)

func TestAnotherDaemonsNamespacesAreLeftAlone(t *testing.T) {
	first, second := newNode(t), newNode(t)
	second.netns = first.netns // as the default is for every daemon
	id := first.run(testConfig("p"))
	second.restart()
	if problems, err := second.Check(t.Context(), true); err != nil || len(problems) != 0 {
		t.Errorf("found %v, %v", problems, err)
	}
	first.restart()
	if p := first.get(id); p.State != pod.Ready {
		t.Errorf("state %s", p.State)
	}
}

func TestHalfWrittenRecordsAreSwept(t *testing.T) {
	n := newNode(t)
	half := filepath.Join(n.root, "pods", n.run(testConfig("p")), ".tmp-state.json-1")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if _, err := os.Lstat(half); err == nil {
		t.Error("it stays")
	}
}
