package e2e

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestStatsAndTopTellWhatAContainerDoes(t *testing.T) {
	name := named(t)
	id := background(t, name, "-m", "100m", busybox, "/bin/sh", "-c", "while :; do :; done")
	var list []struct {
		ID, Name            string
		CPUPercent          float64
		Memory, MemoryLimit uint64
	}
	decode(t, command(t, "stats", "--no-stream", "-o", "json", name), &list)
	if len(list) != 1 || list[0].ID != id || list[0].Name != name || list[0].CPUPercent < 20 || list[0].CPUPercent > 110 || list[0].Memory == 0 || list[0].MemoryLimit != 100<<20 {
		t.Errorf("stats: %+v", list)
	}
	if out := command(t, "stats", "--no-stream"); !strings.Contains(out, name) || !strings.Contains(out, "MEMORY / LIMIT") {
		t.Errorf("stats: %s", out)
	}
	if out := command(t, "top", name); !strings.Contains(out, "/bin/sh -c while :; do :; done") || !strings.Contains(out, name) {
		t.Errorf("top: %s", out)
	}
}

func TestEventsTellWhatHappens(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := berth.Runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	p := runPod(t)
	k := p.start(sh("exit 3"))
	k.await()
	p.remove()
	var got []string
	for len(got) < 8 {
		e, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		who := map[string]string{p.id: "pod", k.id: "container"}[e.ContainerId]
		if who == "" {
			continue
		}
		kind := strings.ToLower(strings.Split(e.ContainerEventType.String(), "_")[1])
		if e.PodSandboxStatus.GetMetadata().GetUid() != p.config.Metadata.Uid {
			t.Errorf("%s %s with the pod %v", who, kind, e.PodSandboxStatus)
		}
		if who+kind == "containerstopped" && (len(e.ContainersStatuses) != 1 || e.ContainersStatuses[0].ExitCode != 3) {
			t.Errorf("stopped with %v", e.ContainersStatuses)
		}
		got = append(got, who+" "+kind)
	}
	const want = "pod created, pod started, container created, container started, container stopped, pod stopped, container deleted, pod deleted"
	if all := strings.Join(got, ", "); all != want {
		t.Errorf("got %s", all)
	}
}

func TestTheEventsCommandFollows(t *testing.T) {
	c := berth.Command(t.Context(), "events")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }() // killed
	defer func() { _ = c.Process.Kill() }()
	lines := make(chan string, 1000)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	eventually(t, func() error { // nothing tells when it listens
		p := runPod(t)
		p.remove()
		for {
			select {
			case line := <-lines:
				if strings.Contains(line, p.config.Metadata.Name) {
					return nil
				}
			case <-time.After(time.Second):
				return errors.New("no line of " + p.config.Metadata.Name)
			}
		}
	})
}
