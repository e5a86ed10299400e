package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

// completionTimeout bounds how long a shell waits for names.
const completionTimeout = time.Second

// completer returns candidates, each perhaps with a tab and a description.
type completer func(ctx context.Context, c *client.Client) ([]string, error)

// complete offers what f finds and is not on the line yet; without a daemon it
// offers nothing.
func (a *app) complete(f completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmdContext(cmd)), completionTimeout)
		defer cancel()
		found, err := f(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found = slices.DeleteFunc(found, func(s string) bool { return slices.Contains(args, s) })
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func cmdContext(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

func (a *app) completeContainers(running bool) cobra.CompletionFunc {
	return a.complete(func(ctx context.Context, c *client.Client) ([]string, error) { return containerNames(ctx, c, running) })
}

func containerNames(ctx context.Context, c *client.Client, running bool) ([]string, error) {
	r := &runtimeapi.ListContainersRequest{}
	if running {
		r.Filter = &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}}
	}
	resp, err := c.Runtime.ListContainers(ctx, r)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, ctr := range resp.Containers {
		names = append(names, ctr.GetMetadata().GetName())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (a *app) completeImages() cobra.CompletionFunc { return a.complete(imageNames) }

func imageNames(ctx context.Context, c *client.Client) ([]string, error) {
	resp, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, image := range resp.Images {
		for _, tag := range image.RepoTags {
			names = append(names, shortImage(tag))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
