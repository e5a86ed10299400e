package nri_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/api"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/nri"
)

// shares asks for CPU shares of a container.
func shares(id string, n uint64) *api.ContainerUpdate {
	u := &api.ContainerUpdate{ContainerId: id}
	u.SetLinuxCPUShares(n)
	return u
}

// set returns the CPU shares that the runtime was told to set, in order.
func (n *node) set(id string) []uint64 {
	var all []uint64
	for _, u := range n.runtime.Updates(id) {
		all = append(all, *u.Resources.CPU.Shares)
	}
	return all
}

func TestUpdatesOfOthersAreMadeBeforeCreateReturns(t *testing.T) {
	n := newNode(t, nri.Options{})
	other := n.create("other")
	n.connect(&plugin{onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		return nil, []*api.ContainerUpdate{shares(other, 128), shares("absent", 2)}, nil
	}})
	n.create("c")
	if got := n.set(other); !slices.Equal(got, []uint64{128}) {
		t.Errorf("set %v", got)
	}
	c, err := n.containers.Get(other)
	if err != nil || c.Status.Resources.CpuShares != 128 {
		t.Errorf("in force %v, %v", c.Status.Resources, err)
	}
}

func TestAPluginMayChangeAnUpdate(t *testing.T) {
	n := newNode(t, nri.Options{})
	other := n.create("other")
	p := n.connect(&plugin{onUpdate: func(c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
		switch r.GetCpu().GetShares().GetValue() {
		case 100:
			return []*api.ContainerUpdate{shares(c.Id, 200), shares(other, 300)}, nil
		case 666:
			return nil, fmt.Errorf("never")
		}
		return nil, nil
	}})
	id := n.create("c")
	if err := n.containers.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 100, OomScoreAdj: 7}); err != nil {
		t.Fatal(err)
	}
	if u := n.runtime.Updates(id); len(u) != 1 || *u[0].Resources.CPU.Shares != 200 || *u[0].OOMScoreAdj != 7 {
		t.Errorf("updates %+v", u)
	}
	n.create("d") // waits for what was asked for
	if got := n.set(other); !slices.Equal(got, []uint64{300}) {
		t.Errorf("set %v", got)
	}
	if err := n.containers.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 666}); err == nil || !strings.Contains(err.Error(), "never") {
		t.Errorf("got %v", err)
	}
	if got := p.told(); !strings.Contains(got, "update c 100, updated c 200") || strings.Contains(got, "updated c 666") {
		t.Errorf("told %s", got)
	}
}

func TestWhatAStoppedContainerHadGoesToOthers(t *testing.T) {
	n := newNode(t, nri.Options{})
	other := n.create("other")
	p := n.connect(&plugin{onStop: func(*api.Container) []*api.ContainerUpdate { return []*api.ContainerUpdate{shares(other, 900)} }})
	id := n.create("c")
	n.start(id)
	n.runtime.Exit(id, 0, false)
	p.await(t, "stop c")
	n.create("d")
	if got := n.set(other); !slices.Equal(got, []uint64{900}) {
		t.Errorf("set %v", got)
	}
}

func TestAPluginUpdatesContainersByItself(t *testing.T) {
	n := newNode(t, nri.Options{})
	ended := n.create("ended")
	if err := n.containers.Kill(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	p := n.connect(&plugin{})
	id := n.create("c")
	failed, err := p.UpdateContainers([]*api.ContainerUpdate{shares(id, 77), shares(ended, 5), shares("absent", 5)})
	if err != nil || len(failed) != 0 {
		t.Fatalf("failed %v, %v", failed, err)
	}
	if got := n.set(id); !slices.Equal(got, []uint64{77}) {
		t.Errorf("set %v", got)
	}

	unfit, tolerated := shares(id, 3), shares(id, 4)
	unfit.Linux.Resources.Memory = &api.LinuxMemory{Reservation: api.Int64(1 << 20)}
	tolerated.Linux.Resources.BlockioClass, tolerated.IgnoreFailure = api.String("gold"), true
	failed, err = p.UpdateContainers([]*api.ContainerUpdate{unfit, tolerated})
	if err != nil || len(failed) != 1 || failed[0].Linux.Resources.Memory == nil {
		t.Errorf("failed %v, %v", failed, err)
	}
	if got := n.set(id); !slices.Equal(got, []uint64{77}) {
		t.Errorf("set %v", got)
	}
}

// TestPluginsThatComeAndGoHoldNobodyUp has operations wait for each other in all
// the ways there are.
func TestPluginsThatComeAndGoHoldNobodyUp(t *testing.T) {
	n := newNode(t, nri.Options{})
	var ids []string
	for i := range 4 {
		ids = append(ids, n.create(fmt.Sprint("old", i)))
	}
	updates := func() (all []*api.ContainerUpdate) {
		for _, id := range ids {
			all = append(all, shares(id, 5))
		}
		return all
	}
	var busy sync.WaitGroup
	for i := range 4 {
		busy.Go(func() {
			for round := range 10 {
				id, err := n.tryCreate(fmt.Sprint("c", i, ".", round))
				if err == nil {
					err = n.containers.Start(t.Context(), id)
				}
				if err == nil {
					err = n.containers.Update(t.Context(), ids[i], &cri.LinuxContainerResources{CpuShares: 10})
				}
				if err == nil {
					err = n.containers.Remove(t.Context(), id)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	busy.Go(func() {
		for i := range 10 {
			p := &plugin{
				name: fmt.Sprint("test", i),
				onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
					return nil, updates(), nil
				},
				onUpdate: func(c *api.Container, _ *api.LinuxResources) ([]*api.ContainerUpdate, error) {
					return slices.DeleteFunc(updates(), func(u *api.ContainerUpdate) bool { return u.ContainerId == c.Id }), nil
				},
				onStop: func(*api.Container) []*api.ContainerUpdate { return updates() },
			}
			n.connect(p)
			if _, err := p.UpdateContainers(updates()); err != nil {
				t.Error(err)
			}
			p.Stop()
		}
	})
	done := make(chan struct{})
	go func() { busy.Wait(); close(done) }()
	n.await(done, "operations wait for each other")
}
