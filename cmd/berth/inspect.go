package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/errs"
)

func inspectCommand(a *app) *cobra.Command {
	var kind string
	f := format("json")
	cmd := &cobra.Command{
		Use:               "inspect NAME...",
		Short:             "Show all that is known of containers, pods or images",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.complete(inspectable),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if f != "json" && f != "yaml" {
				return f.unknown()
			}
			var found []proto.Message
			for _, name := range args {
				m, err := inspectOne(ctx, c, kind, name)
				if err != nil {
					return err
				}
				found = append(found, m)
			}
			return f.printProto(a.out, found)
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "", "look for a container, a pod or an image only")
	cmd.Flags().StringVarP((*string)(&f), "output", "o", "json", "json or yaml")
	return cmd
}

func inspectable(ctx context.Context, c *client.Client) ([]string, error) {
	containers, err := containerNames(ctx, c, false)
	if err != nil {
		return nil, err
	}
	images, err := imageNames(ctx, c)
	return slices.Concat(containers, images), err
}

// inspectOne returns the container, else the pod, else the image of that name.
func inspectOne(ctx context.Context, c *client.Client, kind, name string) (proto.Message, error) {
	kinds := []struct {
		name string
		get  func(context.Context, *client.Client, string) (proto.Message, error)
	}{{"container", inspectContainer}, {"pod", inspectPod}, {"image", inspectImage}}
	known := false
	for _, k := range kinds {
		if kind != "" && kind != k.name {
			continue
		}
		known = true
		m, err := k.get(ctx, c, name)
		// A container's name need not have the form of an image's.
		missing := errors.Is(err, errs.NotFound) || kind == "" && k.name == "image" && errors.Is(err, errs.Invalid)
		if !missing {
			return m, err
		}
	}
	if !known {
		return nil, fmt.Errorf("type %q: choose container, pod or image", kind)
	}
	if kind == "" {
		kind = "container, pod or image"
	}
	return nil, fmt.Errorf("no %s %q", kind, name)
}

func inspectContainer(ctx context.Context, c *client.Client, name string) (proto.Message, error) {
	ctr, err := c.FindContainer(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr.Id, Verbose: true})
}

func inspectPod(ctx context.Context, c *client.Client, name string) (proto.Message, error) {
	pod, err := c.FindPod(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id, Verbose: true})
}

func inspectImage(ctx context.Context, c *client.Client, name string) (proto.Message, error) {
	if _, err := c.FindImage(ctx, name); err != nil {
		return nil, err
	}
	return c.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}, Verbose: true})
}
