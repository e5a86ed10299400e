package main

import (
	"context"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

// ListPodSandboxStats tells of every container that it burns half a processor and
// has 150 of 200 MB.
func (d *fakeDaemon) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &runtimeapi.ListPodSandboxStatsResponse{}
	for id, p := range d.pods {
		st := &runtimeapi.PodSandboxStats{Attributes: &runtimeapi.PodSandboxAttributes{Id: id, Metadata: p.Metadata}, Linux: &runtimeapi.LinuxPodSandboxStats{
			Network: &runtimeapi.NetworkUsage{DefaultInterface: &runtimeapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: value(3e6), TxBytes: value(4e3)}},
		}}
		for cid, c := range d.containers {
			if c.pod == id {
				st.Linux.Containers = append(st.Linux.Containers, &runtimeapi.ContainerStats{
					Attributes: &runtimeapi.ContainerAttributes{Id: cid, Metadata: c.config.Metadata}, Cpu: &runtimeapi.CpuUsage{UsageNanoCores: value(5e8)},
					Memory: &runtimeapi.MemoryUsage{WorkingSetBytes: value(150e6), AvailableBytes: value(50e6)}, WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: value(7e3)},
				})
			}
		}
		resp.Stats = append(resp.Stats, st)
	}
	return resp, nil
}

// GetContainerEvents tells of a container's end, and of its pod's, and goes.
func (d *fakeDaemon) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano()
	p := &runtimeapi.PodSandboxStatus{Id: "pod-id-0123456789", Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "ns"}}
	err := stream.Send(&runtimeapi.ContainerEventResponse{
		ContainerId: "ctr-id-0123456789", ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, CreatedAt: at, PodSandboxStatus: p,
		ContainersStatuses: []*runtimeapi.ContainerStatus{{Id: "ctr-id-0123456789", ExitCode: 3, Metadata: &runtimeapi.ContainerMetadata{Name: "app"}}},
	})
	if err != nil {
		return err
	}
	return stream.Send(&runtimeapi.ContainerEventResponse{
		ContainerId: p.Id, ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, CreatedAt: at + 1, PodSandboxStatus: p,
	})
}

func TestStatsShowsWhatContainersUse(t *testing.T) {
	d := startDaemon(t)
	d.ok(t, "run", "-d", "--name", "web", "busybox", "sleep")
	d.ok(t, "run", "-d", "--name", "other", "busybox", "sleep")
	out := d.ok(t, "stats", "--no-stream")
	for _, want := range []string{"web", "other", "50.0%", "150MB / 200MB", "3MB / 4kB", "7kB"} {
		if !strings.Contains(out, want) {
			t.Errorf("without %q: %s", want, out)
		}
	}
	if strings.Contains(out, clearScreen) {
		t.Error("it clears what is no screen")
	}
	out = d.ok(t, "stats", "--no-stream", "-o", "json", "web")
	if !strings.Contains(out, `"cpuPercent": 50`) || strings.Contains(out, "other") {
		t.Errorf("json of one: %s", out)
	}
	d.fails(t, "stats", "--no-stream", "nothing")
}

func TestEventsAreLines(t *testing.T) {
	d := startDaemon(t)
	_, out, _ := d.berth(t, "", "events") // ends with the stream
	lines := strings.Split(out, "\n")
	if len(lines) < 2 || !strings.Contains(lines[0], "container stopped  ctr-id-01234  app in web, exit code 3") || !strings.Contains(lines[1], "pod       deleted  pod-id-01234  web") {
		t.Errorf("%s", out)
	}
	_, out, _ = d.berth(t, "", "events", "-o", "json")
	if want := `"type":"stopped","kind":"container","id":"ctr-id-0123456789","name":"app","pod":"web","namespace":"ns","exitCode":3}`; !strings.Contains(out, want) {
		t.Errorf("json: %s", out)
	}
}
