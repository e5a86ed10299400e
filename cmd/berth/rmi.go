package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
)

func rmiCommand(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rmi IMAGE...",
		Short:             "Remove images, or one of an image's names",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(args, func(ref string) error {
				untagged, deleted, err := c.RemoveImage(ctx, ref, force)
				if err != nil {
					return err
				}
				for _, name := range untagged {
					fmt.Fprintln(a.out, "Untagged:", name)
				}
				for _, id := range deleted {
					fmt.Fprintln(a.out, "Deleted:", id)
				}
				return nil
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove an image with several names, or that a container uses")
	return cmd
}
