package main

import (
	"context"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func tagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "tag IMAGE NAME",
		Short:             "Give an image one more name",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			_, err := c.Admin.Tag(ctx, &apiv1.TagRequest{Source: args[0], Target: args[1]})
			return err
		}),
	}
}
