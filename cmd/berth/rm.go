package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
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
				ctr, err := c.FindContainer(ctx, name)
				if err != nil {
					return err
				}
				if err := c.Remove(ctx, ctr, force); err != nil {
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
