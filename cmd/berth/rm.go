package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/errs"
)

func rmCommand(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm CONTAINER...",
		Short:             "Remove containers, and the pods that run made for them",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(args, func(name string) error {
				if err := removeOne(ctx, c, name, force); err != nil {
					return err
				}
				fmt.Fprintln(a.out, name)
				return nil
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill a container that runs")
	return cmd
}

func removeOne(ctx context.Context, c *client.Client, name string, force bool) error {
	ctr, err := c.FindContainer(ctx, name)
	if errors.Is(err, errs.NotFound) {
		if podErr := c.RemoveEmptyPod(ctx, name); !errors.Is(podErr, errs.NotFound) {
			return podErr
		}
	}
	if err != nil {
		return err
	}
	return c.Remove(ctx, ctr, force)
}
