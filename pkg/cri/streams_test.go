package cri_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// drain reads a stream to its end and returns the sizes of its parts, and the ids.
func drain[R any](t *testing.T, recv func() (R, error), ids func(R) []string) (parts []int, all []string) {
	t.Helper()
	for {
		r, err := recv()
		if errors.Is(err, io.EOF) {
			return parts, all
		}
		if err != nil {
			t.Fatal(err)
		}
		got := ids(r)
		parts, all = append(parts, len(got)), append(all, got...)
	}
}

func TestStreamsHaveEachItemOnceInSeveralParts(t *testing.T) {
	k := newKubelet(t)
	parts, none := drain(t, k.streamPods(nil), podIDs)
	if len(parts) != 0 || len(none) != 0 {
		t.Errorf("of nothing: %v, %v", parts, none)
	}
	large := strings.Repeat("x", 400<<10)
	for i := range 5 {
		c := k.podConfig(fmt.Sprint("p", i))
		c.Annotations["large"] = large
		r, err := k.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: c})
		if err != nil {
			t.Fatal(err)
		}
		k.start(r.PodSandboxId, "c")
	}
	list, err := k.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range list.Items {
		want = append(want, p.Id)
	}
	parts, got := drain(t, k.streamPods(nil), podIDs)
	if !slices.Equal(got, want) || !slices.Equal(parts, []int{3, 2}) {
		t.Errorf("parts %v of %v, want %v", parts, got, want)
	}
	_, got = drain(t, k.streamPods(&runtimeapi.PodSandboxFilter{Id: want[1]}), podIDs)
	if !slices.Equal(got, want[1:2]) {
		t.Errorf("filtered %v", got)
	}
	stream, err := k.StreamContainers(t.Context(), &runtimeapi.StreamContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: want[0]}})
	if err != nil {
		t.Fatal(err)
	}
	_, got = drain(t, stream.Recv, func(r *runtimeapi.StreamContainersResponse) (ids []string) {
		for _, c := range r.Containers {
			ids = append(ids, c.PodSandboxId)
		}
		return ids
	})
	if !slices.Equal(got, want[:1]) {
		t.Errorf("containers of %v, want %v", got, want[:1])
	}
}

func (k *kubelet) streamPods(f *runtimeapi.PodSandboxFilter) func() (*runtimeapi.StreamPodSandboxesResponse, error) {
	k.t.Helper()
	stream, err := k.StreamPodSandboxes(k.t.Context(), &runtimeapi.StreamPodSandboxesRequest{Filter: f})
	if err != nil {
		k.t.Fatal(err)
	}
	return stream.Recv
}

func podIDs(r *runtimeapi.StreamPodSandboxesResponse) (ids []string) {
	for _, p := range r.PodSandboxes {
		ids = append(ids, p.Id)
	}
	return ids
}
