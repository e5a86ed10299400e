package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// removeTimeout bounds taking away what a failed run left.
const removeTimeout = 30 * time.Second

// Created is a container that waits for Start, in a pod of its own.
type Created struct {
	PodID, PodUID, ContainerID string
}

// DefaultName names a container after its image, with some chance.
func DefaultName(image string) string {
	name, _, _ := strings.Cut(path.Base(image), "@")
	name, _, _ = strings.Cut(name, ":")
	name = strings.Trim(notInHostname.ReplaceAllString(name, "-"), "-")
	if name == "" {
		name = "container"
	}
	return name[:min(len(name), 40)] + "-" + randomHex(3)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// newUID returns a random UUID, as kubelet's pods have.
func newUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Create makes the pod and the container of o, whose images are here already:
// images maps their names to ids. Where it fails nothing is left.
func (c *Client) Create(ctx context.Context, o *RunOptions, images map[string]string) (Created, error) {
	if err := o.Check(); err != nil {
		return Created{}, err
	}
	if err := c.nameIsFree(ctx, o.Name); err != nil {
		return Created{}, err
	}
	p := place{uid: newUID(), imageID: images[o.Image], images: images, volumes: map[string]string{}}
	if err := c.openVolumes(ctx, o.Volumes, p.volumes); err != nil {
		return Created{}, err
	}
	logs, err := c.Admin.OpenLogs(ctx, &apiv1.OpenLogsRequest{PodUid: p.uid})
	if err != nil {
		return Created{}, err
	}
	p.logs = logs.Path
	created := Created{PodUID: p.uid}
	if err := c.create(ctx, o, p, &created); err != nil {
		c.Discard(ctx, created)
		return Created{}, err
	}
	return created, nil
}

func (c *Client) create(ctx context.Context, o *RunOptions, p place, created *Created) error {
	podConfig, config, err := o.configs(p)
	if err != nil {
		return err
	}
	pod, err := c.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig})
	if err != nil {
		return err
	}
	created.PodID = pod.PodSandboxId
	ctr, err := c.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: config, SandboxConfig: podConfig})
	if err != nil {
		return err
	}
	created.ContainerID = ctr.ContainerId
	return nil
}

// Start starts what Create made. Where it fails nothing is left.
func (c *Client) Start(ctx context.Context, created Created) error {
	_, err := c.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerID})
	if err != nil {
		c.Discard(ctx, created)
	}
	return err
}

// Discard removes the pod, even where ctx has ended or the daemon is away for a
// while. It is best effort: what stays is seen by `berth ps -a`.
func (c *Client) Discard(ctx context.Context, created Created) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	_ = c.outlast(ctx, func() error { return c.discard(ctx, created) }) // see above
}

// discard finds a pod whose id was never answered by its uid.
func (c *Client) discard(ctx context.Context, created Created) error {
	if created.PodID != "" {
		return c.removePod(ctx, created.PodID, created.PodUID)
	}
	made, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{apiv1.LabelPodUID: created.PodUID, apiv1.LabelOwner: apiv1.OwnerRun},
	}})
	if err != nil {
		return err
	}
	for _, p := range made.Items {
		if err := c.removePod(ctx, p.Id, created.PodUID); err != nil {
			return err
		}
	}
	_, err = c.Admin.RemoveLogs(ctx, &apiv1.RemoveLogsRequest{PodUid: created.PodUID})
	return err
}

// nameIsFree keeps names of `berth run` unique, as people expect.
func (c *Client) nameIsFree(ctx context.Context, name string) error {
	pods, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{apiv1.LabelPodName: name, apiv1.LabelPodNamespace: "default"},
	}})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		return fail(errs.Exists, "the name %q is taken by pod %s: remove it (berth rm %s), or give another with --name", name, ShortID(p.Id), name)
	}
	return nil
}

func (c *Client) openVolumes(ctx context.Context, volumes []Volume, directories map[string]string) error {
	for _, v := range volumes {
		if v.Name == "" {
			continue
		}
		r, err := c.Admin.OpenVolume(ctx, &apiv1.OpenVolumeRequest{Name: v.Name})
		if err != nil {
			return err
		}
		directories[v.Name] = r.Path
	}
	return nil
}

// Wait returns how the container has ended, once it has, and outlasts a daemon
// that is away for a while.
func (c *Client) Wait(ctx context.Context, id string) (end *apiv1.WaitResponse, err error) {
	err = c.outlast(ctx, func() error {
		end, err = c.Admin.Wait(ctx, &apiv1.WaitRequest{ContainerId: id})
		return err
	})
	return end, err
}
