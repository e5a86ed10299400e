package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func deleteCommand(a *app) *cobra.Command {
	var file, namespace string
	cmd := &cobra.Command{
		Use:               "delete (-f FILE | POD...)",
		Short:             "End and remove pods that apply made",
		ValidArgsFunction: a.complete(appliedNames),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			r := &apiv1.DeleteManifestRequest{}
			for _, name := range args {
				r.Pods = append(r.Pods, &apiv1.PodName{Namespace: namespace, Name: name})
			}
			if (file == "") == (len(args) == 0) {
				return errors.New("name pods, or a manifest with -f FILE")
			}
			if file != "" {
				var err error
				if r.Manifest, err = a.readManifest(file); err != nil {
					return err
				}
			}
			return a.deleteApplied(ctx, c, r)
		}),
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "the manifest that names the pods; - is stdin")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the named pods")
	return cmd
}

func (a *app) deleteApplied(ctx context.Context, c *client.Client, r *apiv1.DeleteManifestRequest) error {
	resp, err := c.Admin.DeleteManifest(ctx, r)
	if err != nil {
		return err
	}
	for _, p := range resp.Deleted {
		fmt.Fprintf(a.out, "pod/%s deleted\n", p.Name)
	}
	for _, p := range resp.Missing {
		a.complain(fmt.Errorf("no applied pod %q in namespace %q", p.Name, p.Namespace))
	}
	if len(resp.Missing) > 0 {
		return &exitError{code: 1}
	}
	return nil
}

func appliedNames(ctx context.Context, c *client.Client) ([]string, error) {
	resp, err := c.Admin.ListManifests(ctx, &apiv1.ListManifestsRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range resp.Pods {
		names = append(names, p.Name)
	}
	return names, nil
}
