package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

// happening is one line of `berth events`.
type happening struct {
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	// Kind is "pod" or "container".
	Kind      string `json:"kind"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	Pod       string `json:"pod,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	ExitCode  *int32 `json:"exitCode,omitempty"`
}

func eventsCommand(a *app) *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happens to pods and containers, from now on, until interrupted",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			stream, err := c.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
			if err != nil {
				return err
			}
			for {
				e, err := stream.Recv()
				if ctx.Err() != nil {
					return nil // that is how people end it
				}
				if err != nil {
					return err
				}
				if err := printEvent(a.out, happeningOf(e), f); err != nil {
					return err
				}
			}
		}),
	}
	f.flag(cmd, "each event")
	return cmd
}

// printEvent writes one line: JSON too has one for each event.
func printEvent(w io.Writer, h happening, f format) error {
	switch f {
	case "":
		line := fmt.Sprintf("%s  %-9s %-8s %s  %s", h.Time.Format(time.RFC3339Nano), h.Kind, h.Type, client.ShortID(h.ID), strings.Join(clean([]string{h.Name}), ""))
		if h.Kind == "container" {
			line += " in " + strings.Join(clean([]string{h.Pod}), "")
		}
		if h.ExitCode != nil {
			line += fmt.Sprintf(", exit code %d", *h.ExitCode)
		}
		_, err := fmt.Fprintln(w, line)
		return err
	case "json":
		data, err := json.Marshal(h)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, string(data))
		return err
	}
	return f.print(w, h, nil)
}

func happeningOf(e *runtimeapi.ContainerEventResponse) happening {
	p := e.GetPodSandboxStatus()
	kind, _, _ := strings.Cut(strings.TrimPrefix(e.GetContainerEventType().String(), "CONTAINER_"), "_")
	h := happening{
		Time: time.Unix(0, e.GetCreatedAt()), Type: strings.ToLower(kind), Kind: "container", ID: e.GetContainerId(),
		Pod: p.GetMetadata().GetName(), Namespace: p.GetMetadata().GetNamespace(),
	}
	if p.GetId() == h.ID {
		h.Kind, h.Name = "pod", h.Pod
	}
	for _, c := range e.GetContainersStatuses() {
		if c.GetId() != h.ID {
			continue
		}
		h.Name = c.GetMetadata().GetName()
		if h.Type == "stopped" {
			h.ExitCode = &c.ExitCode
		}
	}
	h.Name = cmp.Or(h.Name, "-") // one that is gone
	return h
}
