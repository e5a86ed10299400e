package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
)

func checkpointCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "checkpoint CONTAINER --to DIRECTORY",
		Short: "Write a running container down, for berth restore",
		Long: "Write a running container of berth run, its processes and its files, to a new directory. The container goes on.\n\n" +
			"The node needs CRIU. Volumes are not written down. Who can write to the directory can make berth restore do anything as root.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ctr, err := c.FindContainer(ctx, args[0])
			if err != nil {
				return err
			}
			if err := c.Checkpoint(ctx, ctr, dir); err != nil {
				return err
			}
			fmt.Fprintln(a.out, args[0])
			return nil
		}),
	}
	cmd.Flags().StringVar(&dir, "to", "", "the directory to make")
	_ = cmd.MarkFlagRequired("to") // it is there
	return cmd
}

func restoreCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "restore DIRECTORY",
		Short: "Let a container go on from where berth checkpoint wrote it down",
		Args:  cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			created, err := c.Restore(ctx, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, created.ContainerID)
			return nil
		}),
	}
}
