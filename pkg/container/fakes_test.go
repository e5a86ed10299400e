package container_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/pkg/spec"
)

// fakeImages has one image, "app", whose root file system is a directory.
type fakeImages struct {
	dir    string
	config ispec.ImageConfig
	fill   func(rootfs string) error

	refuse func(asked, namespace string) error
	// changes are what a root file system has begun with, labels those of SELinux that
	// were asked for.
	changes string
	labels  []string

	mu      sync.Mutex
	mounted map[string]bool
}

const imageID = digest.Digest("sha256:0123456789012345678901234567890123456789012345678901234567890123")

func (f *fakeImages) Get(ref string) (image.Image, error) {
	if ref == "model" {
		return image.Image{ID: imageID, ArtifactType: "application/x-model"}, nil
	}
	if ref != "app" {
		return image.Image{}, fmt.Errorf("image %s: %w", ref, errs.NotFound)
	}
	return image.Image{ID: imageID, Config: ispec.Image{Config: f.config}}, nil
}

func (f *fakeImages) Admit(_ context.Context, _ image.Image, asked, namespace string) error {
	if f.refuse == nil {
		return nil
	}
	return f.refuse(asked, namespace)
}

func (f *fakeImages) Mount(_ context.Context, r image.MountRequest) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mounted[r.ContainerID] = true
	f.labels = append(f.labels, r.SELinuxLabel)
	rootfs := filepath.Join(f.dir, r.ContainerID)
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return "", err
	}
	if r.Changes != nil {
		data, err := io.ReadAll(r.Changes)
		if err != nil {
			return "", err
		}
		f.changes = string(data)
	}
	if f.fill != nil {
		return rootfs, f.fill(rootfs)
	}
	return rootfs, nil
}

func (f *fakeImages) MountVolumes(_ context.Context, r image.VolumesRequest) ([]image.Volume, error) {
	var all []image.Volume
	f.labels = append(f.labels, r.SELinuxLabel)
	for n, v := range r.Sources {
		if v.Ref != "app" && v.Ref != "model" {
			return nil, fmt.Errorf("%w at %s: %s: %w", image.ErrVolume, v.Path, v.Ref, errs.NotFound)
		}
		all = append(all, image.Volume{Path: fmt.Sprintf("/volumes/%s/%d", r.ContainerID, n), Image: imageID})
	}
	return all, nil
}

func (f *fakeImages) Unmount(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mounted, id)
	return os.RemoveAll(filepath.Join(f.dir, id))
}

func (f *fakeImages) Changes(_ context.Context, id string, w io.Writer) error {
	_, err := io.WriteString(w, "changes of "+id)
	return err
}

func (f *fakeImages) mounts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mounted)
}

// node is a service over fakes, which restart replaces as a killed daemon's.
type node struct {
	*container.Service
	t       *testing.T
	root    string
	runtime *runtimetest.Fake
	// over, where set, stands before the runtime, from the next restart on.
	over    func(*runtimetest.Fake) runtime.Runtime
	images  *fakeImages
	options spec.Options // every handler's, from the next restart on
	host    host.Facts   // from the next restart on
	plugins container.Plugins
	devices string // directory of CDI specifications
	// commands are those of handlers, from the next restart on.
	commands container.Commands
	stop     func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{
		t: t, root: t.TempDir(), runtime: &runtimetest.Fake{},
		devices: t.TempDir(),
		images:  &fakeImages{dir: t.TempDir(), config: ispec.ImageConfig{Cmd: []string{"/app"}}, mounted: map[string]bool{}},
	}
	n.restart()
	t.Cleanup(func() { n.stop() })
	return n
}

// restart opens the records anew, as after kill -9 of the daemon.
func (n *node) restart() {
	n.t.Helper()
	if n.stop != nil {
		n.stop()
	}
	var r runtime.Runtime = n.runtime
	if n.over != nil {
		r = n.over(n.runtime)
	}
	s, err := container.Open(container.Deps{
		Root: n.root, Runtime: r, Images: n.images, Handlers: map[string]spec.Options{"": n.options, "berth": n.options}, Host: n.host,
		Plugins: n.plugins, Devices: cdi.New([]string{n.devices}), Commands: n.commands,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := s.Recover(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n.Service, n.stop = s, func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		n.stop = func() {}
	}
}

func testPod() container.Pod {
	return container.Pod{ID: "pod", Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p"}}}
}

func testConfig(name string) *cri.ContainerConfig {
	return &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: "app"}}
}

// create makes a container or ends the test.
func (n *node) create(c *cri.ContainerConfig) string {
	n.t.Helper()
	id, err := n.Create(n.t.Context(), testPod(), c)
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

// started makes a container and starts it.
func (n *node) started(c *cri.ContainerConfig) string {
	n.t.Helper()
	id := n.create(c)
	if err := n.Start(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n *node) get(id string) *container.Container {
	n.t.Helper()
	c, err := n.Get(id)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// await waits for the container's end.
func (n *node) await(id string) container.Status {
	n.t.Helper()
	events, cancel := n.Subscribe(16)
	defer cancel()
	timeout := time.After(5 * time.Second)
	for {
		if st := n.get(id).Status; st.State == container.Exited {
			return st
		}
		select {
		case <-events:
		case <-timeout:
			n.t.Fatalf("container %s did not end", id)
		}
	}
}
