package pod_test

import (
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
