package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// maxManifest bounds a manifest file, as the API server does.
const maxManifest = 3 << 20

func applyCommand(a *app) *cobra.Command {
	var file string
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Run the pods of a Kubernetes manifest, and keep them running",
		Long: "apply runs Kubernetes Pods without Kubernetes. The daemon keeps them running as their\n" +
			"restart policy says, across its own restarts too, until berth delete. A pod whose\n" +
			"manifest has changed is replaced.",
		Args: cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			manifest, err := a.readManifest(file)
			if err != nil {
				return err
			}
			resp, err := c.Admin.Apply(ctx, &apiv1.ApplyRequest{Manifest: manifest})
			if err != nil {
				return err
			}
			for _, w := range resp.Warnings {
				fmt.Fprintln(a.errOut, "berth: warning: "+w)
			}
			for _, p := range resp.Applied {
				fmt.Fprintf(a.out, "pod/%s %s\n", p.Name, p.Action)
			}
			if wait {
				return waitForPods(ctx, c, resp.Applied, timeout)
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "the manifest, YAML or JSON; - is stdin")
	cmd.Flags().BoolVar(&wait, "wait", false, "return once every pod runs or has succeeded")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long --wait waits")
	_ = cmd.MarkFlagRequired("filename") // fails for a missing flag only
	return cmd
}

func (a *app) readManifest(path string) ([]byte, error) {
	in, err := a.openInput(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s is larger than %s", path, size(maxManifest))
	}
	return data, err
}

// waitForPods asks each 200 ms: people wait for pulls, not for this.
func waitForPods(ctx context.Context, c *client.Client, pods []*apiv1.ApplyResponse_Applied, timeout time.Duration) error {
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := c.Admin.ListManifests(ctx, &apiv1.ListManifestsRequest{})
		if err != nil {
			return err
		}
		waiting, err := podsUp(pods, resp.Pods)
		if err != nil || waiting == "" {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("after %s %s", timeout, waiting)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// podsUp tells which pod is not up yet, "" for none, and fails for one that
// never will be, whatever the others do.
func podsUp(pods []*apiv1.ApplyResponse_Applied, states []*apiv1.ManifestStatus) (waiting string, err error) {
	for _, p := range pods {
		phase, up := "Missing", false
		for _, s := range states {
			if s.Name != p.Name || s.Namespace != p.Namespace {
				continue
			}
			phase, up = s.Phase, s.Phase == "Running" && s.Reason == "" || s.Phase == "Succeeded"
			if s.Phase == "Failed" {
				return "", fmt.Errorf("pod %s failed: %s %s", p.Name, s.Reason, s.Message)
			}
			if s.Reason != "" {
				phase += " (" + s.Reason + ": " + s.Message + ")"
			}
		}
		if !up && waiting == "" {
			waiting = fmt.Sprintf("pod %s is %s", p.Name, phase)
		}
	}
	return waiting, nil
}
