package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// pod is one line of `berth pods`: a sandbox, an applied manifest, or both.
type pod struct {
	ID        string            `json:"id,omitempty"`
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	UID       string            `json:"uid"`
	Attempt   uint32            `json:"attempt"`
	Status    string            `json:"status"`
	Message   string            `json:"message,omitempty"`
	Restarts  int32             `json:"restarts"`
	IP        string            `json:"ip,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
}

func podsCommand(a *app) *cobra.Command {
	var quiet, noTrunc bool
	var f format
	cmd := &cobra.Command{
		Use:   "pods",
		Short: "List pods: kubelet's, applied ones and those of run",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := listPods(ctx, c)
			if err != nil {
				return err
			}
			if quiet {
				for _, p := range list {
					if id := p.id(noTrunc); id != "" { // one without a sandbox has none
						fmt.Fprintln(a.out, id)
					}
				}
				return nil
			}
			return f.print(a.out, list, func(w io.Writer) { podTable(w, list, noTrunc, time.Now()) })
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "print ids in full")
	f.flag(cmd, "the list")
	return cmd
}

func listPods(ctx context.Context, c *client.Client) ([]pod, error) {
	resp, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	applied, err := c.Admin.ListManifests(ctx, &apiv1.ListManifestsRequest{})
	if err != nil {
		return nil, err
	}
	manifests := map[string]*apiv1.ManifestStatus{}
	for _, m := range applied.Pods {
		manifests[m.Uid] = m
	}
	list := []pod{}
	for _, p := range resp.Items {
		v := podView(ctx, c, p)
		if m := manifests[v.UID]; m != nil && (m.SandboxId == "" || m.SandboxId == p.Id) {
			v.merge(m)
			delete(manifests, v.UID)
		}
		list = append(list, v)
	}
	for _, m := range manifests { // those without a sandbox yet
		v := pod{Name: m.Name, Namespace: m.Namespace, UID: m.Uid, CreatedAt: time.Unix(0, m.CreatedAt)}
		v.merge(m)
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b pod) int { return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// podView asks for the address too; a pod that has gone since has none.
func podView(ctx context.Context, c *client.Client, p *runtimeapi.PodSandbox) pod {
	v := pod{
		ID: p.Id, Name: p.GetMetadata().GetName(), Namespace: p.GetMetadata().GetNamespace(), UID: p.GetMetadata().GetUid(),
		Attempt: p.GetMetadata().GetAttempt(), Status: "Ready", CreatedAt: time.Unix(0, p.CreatedAt), Labels: p.Labels,
	}
	if p.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		v.Status = "NotReady"
	}
	if s, err := c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.Id}); err == nil {
		v.IP = s.GetStatus().GetNetwork().GetIp()
	}
	return v
}

func (p *pod) merge(m *apiv1.ManifestStatus) {
	p.Status, p.Message, p.Restarts = cmp.Or(m.Reason, m.Phase), m.Message, m.Restarts
}

func (p *pod) id(whole bool) string {
	if whole {
		return p.ID
	}
	return client.ShortID(p.ID)
}

func podTable(w io.Writer, list []pod, noTrunc bool, now time.Time) {
	var rows [][]string
	for _, p := range list {
		rows = append(rows, []string{cmp.Or(p.id(noTrunc), "-"), p.Name, p.Namespace, p.Status, strconv.Itoa(int(p.Restarts)), cmp.Or(p.IP, "-"), age(now, p.CreatedAt) + " ago", p.Message})
	}
	table(w, []string{"POD ID", "NAME", "NAMESPACE", "STATUS", "RESTARTS", "IP", "CREATED", "MESSAGE"}, rows)
}
