package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func pushCommand(a *app) *cobra.Command {
	var quiet, passwordStdin bool
	var user, compression string
	cmd := &cobra.Command{
		Use:               "push NAME[:TAG]",
		Short:             "Upload an image to the registry that its name is in",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			auth, err := a.auth(user, passwordStdin)
			if err != nil {
				return err
			}
			p := a.newProgress(quiet)
			digest, err := client.Push(ctx, c, &apiv1.PushRequest{Image: args[0], Auth: auth, Compression: compression}, p.show)
			p.end()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, digest)
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress, print the digest")
	cmd.Flags().StringVarP(&user, "user", "u", "", "`USER:PASSWORD` for the registry, or USER with --password-stdin")
	cmd.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from stdin")
	cmd.Flags().StringVar(&compression, "compression", "", "gzip, zstd or none for layers that are no longer kept compressed and that the registry lacks (default gzip)")
	return cmd
}
