package pod_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/pod"
)

// plugins note what they are told, and refuse every pod where refuse is set.
type plugins struct {
	refuse bool
	heard  []string
}

var errRefused = errors.New("not on my node")

func (p *plugins) Hold() func() {
	p.heard = append(p.heard, "hold")
	return func() { p.heard = append(p.heard, "release") }
}

func (p *plugins) Run(_ context.Context, s *pod.Sandbox) error {
	p.heard = append(p.heard, "run "+s.IPs[0].String())
	if p.refuse {
		return errRefused
	}
	return nil
}

func (p *plugins) Stopped(_ context.Context, s *pod.Sandbox) {
	_, err := os.Stat(s.Namespaces()[specs.NetworkNamespace])
	p.heard = append(p.heard, "stopped "+string(s.State))
	if err != nil {
		p.heard = append(p.heard, "without its network")
	}
}

func (p *plugins) Removed(context.Context, *pod.Sandbox) { p.heard = append(p.heard, "removed") }

func (p *plugins) Update(_ context.Context, _ *pod.Sandbox, _, limits *cri.LinuxContainerResources) error {
	p.heard = append(p.heard, "update")
	if limits.GetCpuShares() == 1 {
		return errRefused
	}
	return nil
}

func TestPluginsAreToldOfEachStep(t *testing.T) {
	n, p := newNode(t), &plugins{}
	n.plugins = p
	n.restart()
	id := n.run(testConfig("p"))
	if err := n.UpdateResources(t.Context(), id, nil, &cri.LinuxContainerResources{CpuShares: 1}); !errors.Is(err, errRefused) {
		t.Errorf("update: %v", err)
	}
	if err := n.UpdateResources(t.Context(), "absent", nil, nil); !errors.Is(err, errs.NotFound) {
		t.Errorf("update of no pod: %v", err)
	}
	for range 2 {
		if err := n.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	want := "hold, run 10.1.2.3, release, update, stopped notready, removed"
	if got := strings.Join(p.heard, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestARefusedPodLeavesNothing(t *testing.T) {
	n, p := newNode(t), &plugins{refuse: true}
	n.plugins = p
	n.restart()
	_, err := n.Run(t.Context(), testConfig("p"), "")
	if !errors.Is(err, errRefused) {
		t.Fatalf("got %v", err)
	}
	if len(n.IDs()) != 0 || len(n.network.attached) != 0 || len(n.runtime.Pods()) != 0 {
		t.Errorf("left: pods %q, attached %v", n.IDs(), n.network.attached)
	}
	if want := []string{"hold", "run 10.1.2.3", "release", "removed"}; !slices.Equal(p.heard, want) {
		t.Errorf("plugins heard %q", p.heard)
	}
	p.refuse = false
	n.run(testConfig("p")) // its name is free
}
