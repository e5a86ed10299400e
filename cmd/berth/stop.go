package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
)

func stopCommand(a *app) *cobra.Command {
	var seconds int64
	cmd := &cobra.Command{
		Use:               "stop CONTAINER...",
		Short:             "Stop containers: their stop signal, then a kill",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(args, func(name string) error {
				ctr, err := c.FindContainer(ctx, name)
				if err != nil {
					return err
				}
				if err := c.Stop(ctx, ctr, seconds); err != nil {
					return err
				}
				fmt.Fprintln(a.out, name)
				hintApplied(a, ctr)
				return nil
			})
		}),
	}
	cmd.Flags().Int64VarP(&seconds, "time", "t", 10, "seconds to wait before the kill")
	return cmd
}
