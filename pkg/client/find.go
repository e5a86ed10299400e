package client

import (
	"cmp"
	"context"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// ShortID is as much of an id as people read: 12 digits, without the
// algorithm of a digest.
func ShortID(id string) string {
	_, hex, isDigest := strings.Cut(id, ":")
	if !isDigest {
		hex = id
	}
	return hex[:min(12, len(hex))]
}

// FindContainer returns the container that key means: its id, the unique
// beginning of one, its name, or POD/NAME. Of several with one name it takes
// the only one that runs, or else the newest attempt of the only pod.
func (c *Client) FindContainer(ctx context.Context, key string) (*runtimeapi.Container, error) {
	resp, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	return pickContainer(resp.Containers, key)
}

func pickContainer(all []*runtimeapi.Container, key string) (*runtimeapi.Container, error) {
	named := filter(all, func(c *runtimeapi.Container) bool {
		name := c.GetMetadata().GetName()
		return name == key || c.Labels[apiv1.LabelPodName]+"/"+name == key
	})
	if len(named) == 0 {
		return pickByID("container", all, key, (*runtimeapi.Container).GetId)
	}
	if running := filter(named, isRunning); len(running) == 1 {
		return running[0], nil
	}
	newest := slices.MaxFunc(named, func(a, b *runtimeapi.Container) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
	var ids []string
	for _, c := range named {
		if c.Labels[apiv1.LabelPodUID] != newest.Labels[apiv1.LabelPodUID] || (isRunning(c) && c != newest) {
			ids = append(ids, ShortID(c.Id))
		}
	}
	if len(ids) > 0 {
		return nil, fail(errs.Invalid, "several containers are named %q: give POD/NAME or an id, such as %s", key, strings.Join(append(ids, ShortID(newest.Id)), " or "))
	}
	return newest, nil
}

func isRunning(c *runtimeapi.Container) bool {
	return c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
}

// FindPod returns the pod that key means: its id, the unique beginning of one,
// its name, or NAMESPACE/NAME. Of several with one name it takes the newest.
func (c *Client) FindPod(ctx context.Context, key string) (*runtimeapi.PodSandbox, error) {
	resp, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	named := filter(resp.Items, func(p *runtimeapi.PodSandbox) bool {
		m := p.GetMetadata()
		return m.GetName() == key || m.GetNamespace()+"/"+m.GetName() == key
	})
	if len(named) == 0 {
		return pickByID("pod", resp.Items, key, (*runtimeapi.PodSandbox).GetId)
	}
	return slices.MaxFunc(named, func(a, b *runtimeapi.PodSandbox) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) }), nil
}

// pickByID returns the one object whose id is key or begins with it.
func pickByID[T any](kind string, all []T, key string, id func(T) string) (T, error) {
	var none T
	var found []T
	for _, v := range all {
		if id(v) == key && key != "" {
			return v, nil
		}
		if strings.HasPrefix(id(v), key) && key != "" {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return none, fail(errs.NotFound, "no %s %q", kind, key)
	case 1:
		return found[0], nil
	}
	return none, fail(errs.Invalid, "%d %ss have an id that begins with %q: give more digits", len(found), kind, key)
}

func filter[T any](all []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !keep(v) })
}
