package cri_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subscribe returns a stream that hears all from now on.
func (k *kubelet) subscribe() runtimeapi.RuntimeService_GetContainerEventsClient {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 2*time.Minute)
	k.t.Cleanup(cancel)
	stream, err := k.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return stream
}

func TestEventsTellTheLifeOfAPodInOrder(t *testing.T) {
	k := newKubelet(t)
	stream := k.subscribe()
	podID := k.run("p")
	id := k.start(podID, "c")
	if _, err := k.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: podID}); err != nil {
		t.Fatal(err)
	}
	var got []string
	var last int64
	for range 8 {
		e, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		who := map[string]string{podID: "pod", id: "container"}[e.ContainerId]
		got = append(got, who+" "+strings.ToLower(strings.Split(e.ContainerEventType.String(), "_")[1]))
		if m := e.PodSandboxStatus.GetMetadata(); m.GetUid() != "uid-p" || e.PodSandboxStatus.Id != podID {
			t.Errorf("%s with the pod %v", got[len(got)-1], e.PodSandboxStatus)
		}
		if e.CreatedAt < last || e.CreatedAt == 0 {
			t.Errorf("%s at %d, after %d", got[len(got)-1], e.CreatedAt, last)
		}
		last = e.CreatedAt
	}
	want := []string{"pod created", "pod started", "container created", "container started", "container stopped", "pod stopped", "container deleted", "pod deleted"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestEventsHaveTheStatusesOfAllContainers(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	first := k.start(podID, "first")
	stream := k.subscribe()
	second := k.start(podID, "second")
	for _, kind := range []runtimeapi.ContainerEventType{runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT} {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.ContainerEventType != kind || e.ContainerId != second || len(e.ContainersStatuses) != 2 || e.PodSandboxStatus.GetNetwork().GetIp() == "" {
			t.Errorf("%v", e)
		}
		for _, st := range e.ContainersStatuses {
			if st.Id != first && st.Id != second || st.ImageId == "" || st.CreatedAt == 0 {
				t.Errorf("status %v", st)
			}
		}
	}
}

func TestAReaderThatDoesNotReadIsCutOff(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	slow, other := k.subscribe(), make(chan error, 1)
	quick := k.subscribe()
	const made = 3000 // of three events: more than the queue, and what the connection holds
	go func() {
		for range made {
			if _, err := quick.Recv(); err != nil {
				other <- err
				return
			}
		}
		other <- nil
	}()
	for i := range made / 3 {
		id := k.start(podID, fmt.Sprint("c", i))
		if _, err := k.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
			t.Fatal(err) // nobody waits for a reader
		}
	}
	if err := <-other; err != nil {
		t.Errorf("the reader that reads: %v", err)
	}
	var err error
	for err == nil {
		_, err = slow.Recv()
	}
	wantCode(t, "the slow reader", err, codes.ResourceExhausted)
	if n := k.events.Dropped(); n != 1 {
		t.Errorf("%d readers dropped", n)
	}
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	k := newKubelet(t)
	stream := k.subscribe()
	close(k.stopping)
	_, err := stream.Recv()
	wantCode(t, "a reader at the daemon's end", err, codes.Unavailable)
}
