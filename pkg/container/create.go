package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/idmap"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

// Pod is what a container takes from its pod.
type Pod struct {
	ID      string
	Config  *cri.PodSandboxConfig
	Handler string
	// Namespaces are the pod's pinned ones.
	Namespaces map[specs.LinuxNamespaceType]string
	// CgroupParent is the pod's own cgroup in CRI's form, where it has one.
	CgroupParent string
	// Shm, ResolvConf, Hosts and Hostname are host paths; empty ones are not
	// mounted.
	Shm, ResolvConf, Hosts, Hostname string
	// UTSName is the name in the pod's UTS namespace.
	UTSName string
}

// Create makes a container in a pod and returns its id. One of an equal
// configuration that waits for its start is returned again: its caller may not
// have heard of it. The error is errs.Exists where another container of the pod
// has the name and attempt, errs.NotFound without the image, image.ErrRefused for
// one that the signature policy does not accept. The caller keeps
// the pod from ending meanwhile, and ctx alive: it ends the work half-way.
func (s *Service) Create(ctx context.Context, p Pod, c *cri.ContainerConfig) (string, error) {
	name := c.GetMetadata().GetName()
	if name == "" || c.GetImage().GetImage() == "" {
		return "", fmt.Errorf("container in pod %s: it needs a name and an image: %w", p.ID, errs.Invalid)
	}
	if c.GetWindows() != nil {
		return "", fmt.Errorf("container %s in pod %s is for Windows, and this is Linux: %w", name, p.ID, errs.Invalid)
	}
	id, key := newID(), nameKey(p.ID, c)
	if holder, ok := s.names.Reserve(key, id); !ok {
		return s.again(holder, c)
	}
	if err := s.create(ctx, id, p, c, nil); err != nil {
		s.names.Release(key, id)
		return "", fmt.Errorf("create container %s in pod %s: %w", name, p.ID, err)
	}
	return id, nil
}

// again answers a Create whose name is taken.
func (s *Service) again(holder string, c *cri.ContainerConfig) (string, error) {
	if h := s.table.Get(holder); h != nil && h.Status.State == Created && proto.Equal(h.Config, c) {
		return holder, nil
	}
	m := c.GetMetadata()
	return "", fmt.Errorf("container name %q, attempt %d, belongs to container %s: remove that one or raise the attempt: %w", m.GetName(), m.GetAttempt(), holder, errs.Exists)
}

func newID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// create makes a container, of its image or of a checkpoint.
func (s *Service) create(ctx context.Context, id string, p Pod, c *cri.ContainerConfig, from *checkpoint.Part) error {
	s.leftovers.working(id)
	defer s.leftovers.worked(id)
	var undone undo.Stack
	defer undone.Run(ctx) //nolint:errcheck // what is left is an incomplete record, which Check and Recover take down

	if err := os.Mkdir(s.dir(id), 0o711); err != nil {
		return err
	}
	undone.Push(func(context.Context) error { return os.RemoveAll(s.dir(id)) })

	k, request, user, err := s.prepare(ctx, id, p, c, from, &undone)
	if err != nil {
		return err
	}
	if err := s.make(ctx, k, request, user, from, &undone); err != nil {
		return err
	}
	undone.Discard()
	s.events.Publish(Event{EventCreated, k, time.Now()})
	s.d.Plugins.Tell(ctx, StepCreated, k)
	return nil
}

// make asks the plugins, then the runtime, for a container that is prepared. One of a
// checkpoint has nothing in the runtime until it is started.
func (s *Service) make(ctx context.Context, k *Container, request runtime.CreateRequest, user spec.User, from *checkpoint.Part, undone *undo.Stack) error {
	id := k.ID
	undone.Push(func(ctx context.Context) error { s.d.Plugins.Tell(ctx, StepRemoved, k); return nil })
	release := s.d.Plugins.Hold() // until the container is in the table
	defer release()
	if err := s.d.Plugins.Create(ctx, k, request.Spec); err != nil {
		return err
	}
	k.CgroupsPath = request.Spec.Linux.CgroupsPath
	request.Env = spec.RawEnv(request.Spec.Process)
	if err := s.writeConfig(k, request.Spec, user); err != nil {
		return err
	}
	unlock, err := s.records.Lock(ctx, id) // an exit from here on waits until there is a record to note it in
	if err != nil {
		return err
	}
	defer unlock()
	if from != nil {
		err = s.await(ctx, k, request.Spec, from)
	} else {
		var made runtime.Container
		undone.Push(func(ctx context.Context) error { return ignoreNotFound(s.d.Runtime.Delete(ctx, id)) })
		made, err = s.d.Runtime.Create(ctx, request)
		k.Status = k.Status.observe(made)
	}
	if err != nil {
		return err
	}
	if err := s.writeStatus(id, k.Status); err != nil {
		return err
	}
	s.table.Put(id, k)
	return nil
}

// prepare makes all that the runtime needs to find: the root file system, the
// volumes, the specification.
func (s *Service) prepare(ctx context.Context, id string, p Pod, c *cri.ContainerConfig, from *checkpoint.Part, undone *undo.Stack) (*Container, runtime.CreateRequest, spec.User, error) {
	var request runtime.CreateRequest
	fail := func(err error) (*Container, runtime.CreateRequest, spec.User, error) {
		return nil, request, spec.User{}, err
	}

	devices, err := s.d.Devices.For(c)
	if err != nil {
		return fail(err)
	}
	img, err := s.usableImage(ctx, p, c)
	if err != nil {
		return fail(err)
	}
	logPath, err := logPath(p.Config, c)
	if err != nil {
		return fail(err)
	}
	stopSignal, err := spec.StopSignal(c, img.Config.Config)
	if err != nil {
		return fail(err)
	}
	undone.Push(func(ctx context.Context) error { return s.d.Images.Unmount(ctx, id) })
	by, err := s.command(ctx, p.Handler, from != nil)
	if err != nil {
		return fail(err)
	}
	in, err := s.input(ctx, id, p, c, img, from)
	if err != nil {
		return fail(err)
	}
	in.Host = by.Lower(in.Host)
	volumeImages, err := imageVolumes(ctx, s.d.Images, p.Handler, &in)
	if err != nil {
		return fail(err)
	}
	sp, err := spec.Container(in)
	if err != nil {
		return fail(err)
	}
	if err := relabelMounts(ctx, &in, sp); err != nil {
		return fail(err)
	}
	devices.Apply(sp, idmap.Possible)
	k := &Container{
		ID: id, PodID: p.ID, Config: c, ImageID: img.ID.String(), VolumeImages: volumeImages, LogPath: logPath, User: criUser(in.User),
		StopSignal: criSignal(stopSignal), CreatedAt: time.Now(),
		Status:  Status{State: Created, Resources: c.GetLinux().GetResources()},
		handler: p.Handler, stopSignal: stopSignal, restores: from != nil, process: sp.Process, asked: new(atomic.Bool), exited: make(chan struct{}),
	}
	request = runtime.CreateRequest{
		ID: id, PodID: p.ID, Spec: sp,
		LogPath: logPath, Stdin: c.GetStdin(), StdinOnce: c.GetStdinOnce(), Command: by.Command,
	}
	return k, request, in.User, nil
}

// command returns what makes the containers of a handler.
func (s *Service) command(ctx context.Context, handler string, checkpoints bool) (Command, error) {
	if s.d.Commands == nil {
		return Command{}, nil
	}
	by, err := s.d.Commands.Command(ctx, handler)
	if err == nil && checkpoints && by.Command != nil {
		err = fmt.Errorf("runtime handler %s makes and restores no checkpoints: %w", handler, errs.Unsupported)
	}
	return by, err
}

// usableImage returns a container's image, which its pod may use.
func (s *Service) usableImage(ctx context.Context, p Pod, c *cri.ContainerConfig) (image.Image, error) {
	i := c.GetImage()
	if _, ok := s.d.Handlers[i.GetRuntimeHandler()]; !ok {
		return image.Image{}, fmt.Errorf("runtime handler %q of image %s is not configured: %w", i.GetRuntimeHandler(), i.GetImage(), errs.NotFound)
	}
	img, err := s.d.Images.Get(i.GetImage())
	if err == nil {
		err = img.Runnable()
	}
	if err != nil {
		return img, err
	}
	asked := cmp.Or(i.GetUserSpecifiedImage(), i.GetImage())
	return img, stage.Run(ctx, "signature policy", func(ctx context.Context) error {
		return s.d.Images.Admit(ctx, img, asked, p.Config.GetMetadata().GetNamespace())
	})
}

// input gathers what decides the specification. It mounts the root file system
// and makes the directories that the specification names.
func (s *Service) input(ctx context.Context, id string, p Pod, c *cri.ContainerConfig, img image.Image, from *checkpoint.Part) (spec.Input, error) {
	options, ok := s.d.Handlers[p.Handler]
	if !ok {
		return spec.Input{}, fmt.Errorf("runtime handler %q is not configured: %w", p.Handler, errs.NotFound)
	}
	in := spec.Input{
		ID: id, PodID: p.ID, Pod: p.Config, Container: c, Image: img.Config.Config, Namespaces: p.Namespaces, CgroupParent: p.CgroupParent,
		Shm: p.Shm, ResolvConf: p.ResolvConf, Hosts: p.Hosts, Hostname: p.Hostname, UTSName: p.UTSName, Host: s.d.Host, System: s.d.System, Options: options,
	}
	var err error
	if in.RootFS, err = s.mount(ctx, id, p, c, img.ID, from); err != nil {
		return in, err
	}
	if in.User, err = resolveUser(in.RootFS, c, img.Config.Config.User); err != nil {
		return in, err
	}
	if in.Volumes, err = s.volumes(ctx, id, in); err != nil {
		return in, err
	}
	if in.TargetPIDNS, err = s.targetPIDNamespace(p, c); err != nil {
		return in, err
	}
	in.Sources = map[string]string{}
	for _, path := range spec.MissingHostPaths(c) {
		if in.Sources[path], err = host.EnsureSource(path); err != nil {
			return in, err
		}
	}
	return in, nil
}

func (s *Service) mount(ctx context.Context, id string, p Pod, c *cri.ContainerConfig, img digest.Digest, from *checkpoint.Part) (string, error) {
	uid, gid, _, err := spec.UserNamespace(p.Config)
	if err != nil {
		return "", err
	}
	_, label, err := spec.SELinux(p.Config, c, s.d.Host)
	if err != nil {
		return "", err
	}
	begins, done, err := changes(from)
	if err != nil {
		return "", err
	}
	defer done()
	var root string
	err = stage.Run(ctx, "root file system", func(ctx context.Context) error {
		root, err = s.d.Images.Mount(ctx, image.MountRequest{
			ContainerID: id, Image: img, Handler: p.Handler, Use: c.GetImage().GetRuntimeHandler(), UIDMappings: uid, GIDMappings: gid, SELinuxLabel: label, Changes: begins,
		})
		return err
	})
	return root, err
}

// targetPIDNamespace returns the process namespace that a container in mode
// TARGET joins, as kubectl debug asks for.
func (s *Service) targetPIDNamespace(p Pod, c *cri.ContainerConfig) (string, error) {
	o := c.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if o.GetPid() != cri.NamespaceMode_TARGET {
		if o.GetTargetId() != "" {
			return "", fmt.Errorf("process namespace of mode %s with a target, %s: %w", o.GetPid(), o.GetTargetId(), errs.Invalid)
		}
		return "", nil
	}
	target, err := s.Get(o.GetTargetId())
	if err != nil {
		return "", fmt.Errorf("process namespace of target: %w", err)
	}
	switch {
	case target.PodID != p.ID:
		return "", fmt.Errorf("process namespace of target %s: it is in another pod: %w", target.ID, errs.Invalid)
	case target.Status.State != Running:
		return "", fmt.Errorf("process namespace of target %s: it is not running: %w", target.ID, errs.Conflict)
	}
	return fmt.Sprintf("/proc/%d/ns/pid", target.Status.PID), nil
}

// logPath returns where the log is, and makes its directory. The empty path
// means no log.
func logPath(p *cri.PodSandboxConfig, c *cri.ContainerConfig) (string, error) {
	directory, name := p.GetLogDirectory(), c.GetLogPath()
	if directory == "" || name == "" {
		return "", nil
	}
	if !filepath.IsAbs(directory) || !filepath.IsLocal(name) || filepath.Clean(name) == "." || strings.ContainsRune(directory+name, 0) {
		return "", fmt.Errorf("log path %q in %q: must stay in an absolute directory: %w", name, directory, errs.Invalid)
	}
	path := filepath.Join(directory, name)
	return path, os.MkdirAll(filepath.Dir(path), 0o755)
}

func criUser(u spec.User) *cri.ContainerUser {
	l := &cri.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.Additional {
		l.SupplementalGroups = append(l.SupplementalGroups, int64(g))
	}
	return &cri.ContainerUser{Linux: l}
}
