package matrix

import (
	"net/http"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var streamRows = map[string]row{
	"Exec": {make: func(t *testing.T) call {
		r := &cri.ExecRequest{ContainerId: look(t).container, Cmd: []string{"true"}, Stdout: true}
		return call{request: r, effect: opensOnce(func(r reply) string { return the[*cri.ExecResponse](r).Url })}
	}, wrong: slices.Concat(ids("container", setExec), []wrong{
		several("container", containerIDs, setExec),
		bad("no command", codes.InvalidArgument, func(r *cri.ExecRequest) { r.Cmd = nil }),
		bad("no streams", codes.InvalidArgument, func(r *cri.ExecRequest) { r.Stdout = false }),
		bad("a terminal with stderr", codes.InvalidArgument, func(r *cri.ExecRequest) { r.Tty, r.Stderr = true, true }),
	})},
	"Attach": {make: func(t *testing.T) call {
		r := &cri.AttachRequest{ContainerId: look(t).container, Stdout: true}
		return call{request: r, effect: opensOnce(func(r reply) string { return the[*cri.AttachResponse](r).Url })}
	}, wrong: slices.Concat(ids("container", setAttached), []wrong{
		several("container", containerIDs, setAttached),
		bad("no streams", codes.InvalidArgument, func(r *cri.AttachRequest) { r.Stdout = false }),
		bad("a terminal with stderr", codes.InvalidArgument, func(r *cri.AttachRequest) { r.Tty, r.Stderr = true, true }),
	})},
	"PortForward": {make: func(t *testing.T) call {
		r := &cri.PortForwardRequest{PodSandboxId: look(t).pod, Port: []int32{80}}
		return call{request: r, effect: opensOnce(func(r reply) string { return the[*cri.PortForwardResponse](r).Url })}
	}, wrong: slices.Concat(ids("pod", setForwarded), []wrong{
		several("pod", podIDs, setForwarded),
		bad("port 0", codes.InvalidArgument, func(r *cri.PortForwardRequest) { r.Port = []int32{0} }),
		bad("a negative port", codes.InvalidArgument, func(r *cri.PortForwardRequest) { r.Port = []int32{80, -1} }),
		bad("a port that is none", codes.InvalidArgument, func(r *cri.PortForwardRequest) { r.Port = []int32{65536} }),
	})},
	"GetContainerEvents": {make: func(t *testing.T) call {
		return call{
			request: &cri.GetEventsRequest{},
			during:  func() error { return happens(t) },
			enough: func(m proto.Message) bool {
				e := m.(*cri.ContainerEventResponse)
				return e.ContainerEventType == cri.ContainerEventType_CONTAINER_DELETED_EVENT
			},
			effect: func(t *testing.T, replies []reply) {
				for _, r := range replies {
					e := r[len(r)-1].(*cri.ContainerEventResponse)
					if e.ContainerId == "" || e.CreatedAt == 0 || e.PodSandboxStatus == nil {
						t.Errorf("got %v", e)
					}
				}
			},
		}
	}, without: nothingWrong("the request has no fields")},
}

func setExec(r *cri.ExecRequest, id string)             { r.ContainerId = id }
func setAttached(r *cri.AttachRequest, id string)       { r.ContainerId = id }
func setForwarded(r *cri.PortForwardRequest, id string) { r.PodSandboxId = id }

// opensOnce is the effect of calls that answer with a URL: each its own, which is
// good for one request. The last is of the daemon that runs.
func opensOnce(url func(reply) string) func(*testing.T, []reply) {
	return func(t *testing.T, replies []reply) {
		seen := map[string]bool{}
		for _, r := range replies {
			if seen[url(r)] {
				t.Errorf("%s is answered twice", url(r))
			}
			seen[url(r)] = true
		}
		last := url(replies[len(replies)-1])
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for n, known := range []bool{true, false} { // it is no upgrade, which is refused in other words
			r, err := client.Get(last)
			must(t, err)
			r.Body.Close()
			if known != (r.StatusCode != http.StatusNotFound) {
				t.Errorf("request %d of %s: %s", n, last, r.Status)
			}
		}
	}
}

// happens lets a pod come and go.
func happens(t *testing.T) error {
	c, err := podConfig()
	if err != nil {
		return err
	}
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		return err
	}
	_, err = berth.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId})
	return err
}
