package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// container is one line of `berth ps`.
type container struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Pod       string            `json:"pod"`
	PodID     string            `json:"podId"`
	Namespace string            `json:"namespace"`
	Image     string            `json:"image"`
	ImageID   string            `json:"imageId"`
	Command   string            `json:"command,omitempty"`
	State     string            `json:"state"`
	Status    string            `json:"status"`
	Ports     string            `json:"ports,omitempty"`
	ExitCode  int32             `json:"exitCode"`
	Attempt   uint32            `json:"attempt"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// psOptions are the flags of ps.
type psOptions struct {
	all, quiet, noTrunc bool
	filters             []string
	format              format
}

func psCommand(a *app) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"ls", "list"},
		Short:   "List containers",
		Args:    cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			return listContainers(ctx, c, a.out, o, time.Now())
		}),
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "list those that do not run too")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print ids only")
	cmd.Flags().BoolVar(&o.noTrunc, "no-trunc", false, "print ids, images and commands in full")
	cmd.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "list only `KEY=VALUE`: name, id, pod, image, status or label")
	o.format.flag(cmd, "the list")
	return cmd
}

func listContainers(ctx context.Context, c *client.Client, w io.Writer, o psOptions, now time.Time) error {
	keep, err := containerFilter(o.filters)
	if err != nil {
		return err
	}
	resp, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	slices.SortFunc(resp.Containers, func(a, b *runtimeapi.Container) int { return -cmp.Compare(a.CreatedAt, b.CreatedAt) })
	list := []container{}
	statusAsked := slices.ContainsFunc(o.filters, func(f string) bool { return strings.HasPrefix(f, "status=") })
	for _, item := range resp.Containers {
		running := item.State == runtimeapi.ContainerState_CONTAINER_RUNNING
		if v := containerView(item); (running || o.all || statusAsked) && keep(v) {
			if !o.quiet {
				describe(ctx, c, &v, now)
			}
			list = append(list, v)
		}
	}
	if o.quiet {
		for _, v := range list {
			fmt.Fprintln(w, o.id(v.ID))
		}
		return nil
	}
	return o.format.print(w, list, func(w io.Writer) { o.table(w, list, now) })
}

func containerView(c *runtimeapi.Container) container {
	image := c.GetImage().GetUserSpecifiedImage()
	return container{
		ID:        c.Id,
		Name:      c.GetMetadata().GetName(),
		Pod:       c.Labels[apiv1.LabelPodName],
		PodID:     c.PodSandboxId,
		Namespace: c.Labels[apiv1.LabelPodNamespace],
		Image:     cmp.Or(image, c.GetImage().GetImage(), c.ImageRef),
		ImageID:   cmp.Or(c.ImageId, c.ImageRef),
		Command:   c.Annotations[apiv1.AnnotationCommand],
		State:     stateName(c.State),
		Ports:     c.Annotations[apiv1.AnnotationPorts],
		Attempt:   c.GetMetadata().GetAttempt(),
		CreatedAt: time.Unix(0, c.CreatedAt),
		Labels:    c.Labels,
	}
}

func stateName(s runtimeapi.ContainerState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "CONTAINER_"))
}

// describe fills in what only the container's status tells. One that has gone
// since the list keeps its state.
func describe(ctx context.Context, c *client.Client, v *container, now time.Time) {
	v.Status = strings.ToUpper(v.State[:1]) + v.State[1:]
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: v.ID})
	if err != nil || resp.Status == nil {
		return
	}
	v.ExitCode = resp.Status.ExitCode
	v.Status = statusWords(resp.Status, now)
}

// statusWords says a container's state as Docker does.
func statusWords(s *runtimeapi.ContainerStatus, now time.Time) string {
	switch s.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return "Up " + age(now, time.Unix(0, s.StartedAt))
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		words := fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, age(now, time.Unix(0, s.FinishedAt)))
		if s.Reason == "OOMKilled" {
			words += ", out of memory"
		}
		return words
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return "Created"
	}
	return "Unknown"
}

func (o psOptions) id(id string) string {
	if o.noTrunc {
		return id
	}
	return client.ShortID(id)
}

func (o psOptions) table(w io.Writer, list []container, now time.Time) {
	var rows [][]string
	for _, v := range list {
		image, command := v.Image, v.Command
		if !o.noTrunc {
			image, command = shortImage(image), shorten(command, 24)
		}
		rows = append(rows, []string{o.id(v.ID), image, command, age(now, v.CreatedAt) + " ago", v.Status, v.Ports, v.Name, v.Pod})
	}
	table(w, []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME", "POD"}, rows)
}

// shortImage leaves out what people do not type, and cuts an image's id.
func shortImage(ref string) string {
	if strings.HasPrefix(ref, "sha256:") {
		return client.ShortID(ref)
	}
	return shorten(strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/"), 48)
}

// containerFilter returns what --filter asks: every key must match, and of one
// key's values any.
func containerFilter(filters []string) (func(container) bool, error) {
	wanted := map[string][]string{}
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok || !slices.Contains([]string{"name", "id", "pod", "image", "status", "label"}, key) {
			return nil, fmt.Errorf("filter %q: write KEY=VALUE, where KEY is name, id, pod, image, status or label", f)
		}
		wanted[key] = append(wanted[key], value)
	}
	return func(v container) bool {
		for key, values := range wanted {
			if !slices.ContainsFunc(values, func(want string) bool { return v.matches(key, want) }) {
				return false
			}
		}
		return true
	}, nil
}

func (v container) matches(key, want string) bool {
	switch key {
	case "name":
		return strings.Contains(v.Name, want)
	case "id":
		return strings.HasPrefix(v.ID, want)
	case "pod":
		return v.Pod == want || strings.HasPrefix(v.PodID, want)
	case "image":
		return shortImage(v.Image) == shortImage(want) || shortImage(v.Image) == shortImage(want)+":latest" || v.ImageID == want
	case "status":
		return v.State == want
	}
	name, value, hasValue := strings.Cut(want, "=") // label
	got, ok := v.Labels[name]
	return ok && (!hasValue || got == value)
}
