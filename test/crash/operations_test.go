package crash

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// operation is work in whose middle somebody dies.
type operation struct {
	name string
	// ready makes what the call needs, and returns it.
	ready func(t *testing.T, s *stage) call
}

// call is one request.
type call struct {
	// do makes the request; it is the same each time.
	do func(context.Context) error
	// verify tells whether all of it has taken effect, and removes it.
	verify func()
	// mayFail tells that one whose answer is lost is not repeated by berthd.
	mayFail bool
}

var operations = []operation{
	{name: "RunPodSandbox", ready: runPod},
	{name: "SharedProcesses", ready: runPodWithInit},
	{name: "CreateContainer", ready: createContainer},
	{name: "StartContainer", ready: startContainer},
	{name: "ExecSync", ready: execSync},
	{name: "StopContainer", ready: stopContainer},
	{name: "RemovePodSandbox", ready: removePod},
	{name: "PullImage", ready: pullImage},
}

func runPod(t *testing.T, _ *stage) call {
	return podCall(t, newPod(cri.NamespaceMode_POD))
}

// runPodWithInit is for pods that have a PID 1.
func runPodWithInit(t *testing.T, _ *stage) call {
	p := newPod(cri.NamespaceMode_NODE)
	p.config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	return podCall(t, p)
}

func podCall(t *testing.T, p *pod) call {
	return call{do: p.run, verify: func() {
		r, err := berth.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
		must(t, err)
		own := p.config.Linux.SecurityContext.NamespaceOptions.Network == cri.NamespaceMode_POD
		if s := r.Status; s.State != cri.PodSandboxState_SANDBOX_READY || own != (s.Network.GetIp() != "") {
			t.Errorf("pod %v", s)
		}
		p.script("echo here; exit 5").begin(t).awaitExit(t, 5)
		must(t, p.remove(t.Context()))
	}}
}

func createContainer(t *testing.T, s *stage) call {
	c := s.pods[number.Add(1)%2].script("echo hello; exit 9")
	return call{do: c.create, verify: func() {
		c.await(t, cri.ContainerState_CONTAINER_CREATED)
		must(t, c.start(t.Context()))
		c.awaitExit(t, 9)
		wantLines(t, c, "hello")
		must(t, c.remove(t.Context()))
	}}
}

// polite is a container that takes a moment to end, and says so.
const polite = `trap 'nap 0.03; echo bye; exit 4' TERM; echo up; while :; do nap 1; done`

func startContainer(t *testing.T, s *stage) call {
	c := s.pods[number.Add(1)%2].script(polite)
	must(t, c.create(t.Context()))
	return call{do: c.start, verify: func() {
		c.await(t, cri.ContainerState_CONTAINER_RUNNING)
		eventually(t, c.isUp(t))
		must(t, c.stop(t.Context()))
		c.awaitExit(t, 4)
		wantLines(t, c, "up", "bye")
		must(t, c.remove(t.Context()))
	}}
}

// isUp tells whether c has written its first line.
func (c *container) isUp(t *testing.T) func() error {
	return func() error {
		if len(c.lines(t)) == 0 {
			return fmt.Errorf("container %s has written nothing", c.id)
		}
		return nil
	}
}

func stopContainer(t *testing.T, s *stage) call {
	c := s.pods[number.Add(1)%2].script(polite).begin(t)
	eventually(t, c.isUp(t))
	return call{do: c.stop, verify: func() {
		c.awaitExit(t, 4)
		if l := c.lines(t); l[0] != "up" || l[len(l)-1] != "bye" {
			t.Errorf("log %q", l)
		}
		must(t, c.remove(t.Context()))
	}}
}

// execSync runs a command that has a child while it lasts.
func execSync(t *testing.T, s *stage) call {
	c := s.pods[0].script("echo up; while :; do nap 1; done").begin(t)
	eventually(t, c.isUp(t))
	const script = `(while :; do read -t 1 _; done) <>/nap & read -t 0.03 _ <>/nap; kill $!; echo done; exit 3`
	return call{mayFail: true, do: func(ctx context.Context) error {
		r, err := berth.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/sh", "-c", script}, Timeout: 10})
		if err == nil && (r.ExitCode != 3 || string(r.Stdout) != "done\n") {
			err = fmt.Errorf("exec answers %v", r)
		}
		return err
	}, verify: func() {
		c.await(t, cri.ContainerState_CONTAINER_RUNNING)
		eventually(t, func() error {
			if all := processes(c.id); len(all) != 1 {
				return fmt.Errorf("container has %d processes, execs have ended: %q", len(all), all)
			}
			return nil
		})
		must(t, c.remove(t.Context()))
	}}
}

func removePod(t *testing.T, _ *stage) call {
	p := newPod(cri.NamespaceMode_POD)
	must(t, p.run(t.Context()))
	p.script("while :; do nap 1; done").begin(t)
	return call{do: p.remove, verify: func() {
		r, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: p.id}})
		if err != nil || len(r.Items) != 0 {
			t.Errorf("after removal: %v, %v", r, err)
		}
	}}
}

func pullImage(t *testing.T, s *stage) call {
	image := &cri.ImageSpec{Image: s.image}
	return call{do: func(ctx context.Context) error {
		_, err := berth.Images.PullImage(ctx, &cri.PullImageRequest{Image: image})
		return err
	}, verify: func() {
		c := s.pods[0].script("cat /words; exit 6")
		c.config.Image = image
		c.begin(t).awaitExit(t, 6)
		wantLines(t, c, strings.Fields(words)...)
		must(t, c.remove(t.Context()))
		_, err := berth.Images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: image})
		must(t, err)
	}}
}

func wantLines(t *testing.T, c *container, want ...string) {
	t.Helper()
	if got := c.lines(t); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("log of %s is %.200q, it wrote %.200q", c.config.Metadata.Name, got, want)
	}
}

const words = "to\nbe\nor\nnot\n"

// serveSlowly serves an image from a registry that takes its time, and returns
// the image's name. It has more layers where they are given.
func serveSlowly(t *testing.T, more ...images.Layer) string {
	t.Helper()
	i, err := images.Busybox()
	must(t, err)
	i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "words", Data: []byte(words)}}})
	i.Layers = append(i.Layers, more...)
	b, err := i.Build()
	must(t, err)
	r := &registry.Registry{}
	r.Add("slow", "1", b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.ServeHTTP(slow{w}, req) }))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return strings.TrimPrefix(server.URL, "http://") + "/slow:1"
}

// slow waits before each write.
type slow struct{ http.ResponseWriter }

func (s slow) Write(b []byte) (int, error) {
	<-time.After(2 * time.Millisecond)
	return s.ResponseWriter.Write(b)
}
