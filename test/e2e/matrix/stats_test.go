package matrix

import (
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const fitsNothing = "a filter that fits nothing is answered by nothing: see the fields"

var statsRows = map[string]row{
	"ContainerStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.ContainerStatsRequest{ContainerId: x.container}, func(t *testing.T, r reply) {
			ofContainer(t, x, the[*cri.ContainerStatsResponse](r).Stats)
		}
	}, nil, append(ids("container", setMeasured), several("container", containerIDs, setMeasured))...),
	"ListContainerStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: x.container, PodSandboxId: x.pod}}, func(t *testing.T, r reply) {
			ofContainer(t, x, the[*cri.ListContainerStatsResponse](r).Stats...)
		}
	}, nothingWrong(fitsNothing)),
	"StreamContainerStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.StreamContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: x.container}}, func(t *testing.T, r reply) {
			ofContainer(t, x, the[*cri.StreamContainerStatsResponse](r).ContainerStats...)
		}
	}, nothingWrong(fitsNothing)),
	"PodSandboxStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.PodSandboxStatsRequest{PodSandboxId: x.pod}, func(t *testing.T, r reply) {
			ofPod(t, x, the[*cri.PodSandboxStatsResponse](r).Stats)
		}
	}, nil, append(ids("pod", setPodMeasured), several("pod", podIDs, setPodMeasured))...),
	"ListPodSandboxStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.ListPodSandboxStatsRequest{Filter: &cri.PodSandboxStatsFilter{Id: x.pod, LabelSelector: x.config.Labels}}, func(t *testing.T, r reply) {
			ofPod(t, x, the[*cri.ListPodSandboxStatsResponse](r).Stats...)
		}
	}, nothingWrong(fitsNothing)),
	"StreamPodSandboxStats": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.StreamPodSandboxStatsRequest{Filter: &cri.PodSandboxStatsFilter{Id: x.pod}}, func(t *testing.T, r reply) {
			ofPod(t, x, the[*cri.StreamPodSandboxStatsResponse](r).PodSandboxStats...)
		}
	}, nothingWrong(fitsNothing)),
	"ListMetricDescriptors": asks(func(*testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.ListMetricDescriptorsRequest{}, func(t *testing.T, r reply) {
			if d := the[*cri.ListMetricDescriptorsResponse](r).Descriptors; len(d) < 50 {
				t.Errorf("%d descriptors", len(d))
			}
		}
	}, nothingWrong("the request has no fields")),
	"ListPodSandboxMetrics": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.ListPodSandboxMetricsRequest{}, func(t *testing.T, r reply) {
			hasMetrics(t, x, the[*cri.ListPodSandboxMetricsResponse](r).PodMetrics)
		}
	}, nothingWrong("the request has no fields")),
	"StreamPodSandboxMetrics": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.StreamPodSandboxMetricsRequest{}, func(t *testing.T, r reply) {
			var all []*cri.PodSandboxMetrics
			for _, m := range r {
				all = append(all, m.(*cri.StreamPodSandboxMetricsResponse).PodSandboxMetrics...)
			}
			hasMetrics(t, x, all)
		}
	}, nothingWrong("the request has no fields")),
}

func setMeasured(r *cri.ContainerStatsRequest, id string)     { r.ContainerId = id }
func setPodMeasured(r *cri.PodSandboxStatsRequest, id string) { r.PodSandboxId = id }

func ofContainer(t *testing.T, x things, all ...*cri.ContainerStats) {
	t.Helper()
	if len(all) != 1 || all[0].GetAttributes().GetId() != x.container || all[0].GetCpu() == nil || all[0].GetMemory().GetWorkingSetBytes() == nil {
		t.Errorf("got %v", all)
	}
}

func ofPod(t *testing.T, x things, all ...*cri.PodSandboxStats) {
	t.Helper()
	if len(all) != 1 || all[0].GetAttributes().GetId() != x.pod || all[0].GetLinux().GetCpu() == nil {
		t.Errorf("got %v", all)
		return
	}
	ofContainer(t, x, all[0].Linux.Containers...)
}

func hasMetrics(t *testing.T, x things, all []*cri.PodSandboxMetrics) {
	t.Helper()
	for _, m := range all {
		if m.PodSandboxId == x.pod && len(m.ContainerMetrics) == 1 && len(m.ContainerMetrics[0].Metrics) > 10 {
			return
		}
	}
	t.Errorf("none of %d pods is %s with its container", len(all), x.pod)
}
