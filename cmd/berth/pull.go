package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// maxPassword bounds what --password-stdin reads.
const maxPassword = 64 << 10

func pullCommand(a *app) *cobra.Command {
	var quiet, passwordStdin bool
	var user, platform string
	cmd := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image from a registry",
		Args:  cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			auth, err := a.auth(user, passwordStdin)
			if err != nil {
				return err
			}
			p := a.newProgress(quiet)
			image, err := c.Pull(ctx, &apiv1.PullRequest{Image: args[0], Auth: auth, Platform: platform}, p.show)
			p.end()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, image.Id)
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress, print the id")
	cmd.Flags().StringVarP(&user, "user", "u", "", "`USER:PASSWORD` for the registry, or USER with --password-stdin")
	cmd.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from stdin")
	cmd.Flags().StringVar(&platform, "platform", "", "pull for another `OS/ARCH[/VARIANT]`")
	return cmd
}

func (a *app) auth(user string, passwordStdin bool) (*apiv1.Auth, error) {
	name, password, hasPassword := strings.Cut(user, ":")
	switch {
	case user == "" && !passwordStdin:
		return nil, nil
	case name == "":
		return nil, fmt.Errorf("--password-stdin needs a user: give --user NAME")
	case passwordStdin == hasPassword:
		return nil, fmt.Errorf("give the password once: as --user %s:PASSWORD, or on stdin with --password-stdin", name)
	}
	if passwordStdin {
		line, err := bufio.NewReader(io.LimitReader(a.in, maxPassword)).ReadString('\n')
		if err != nil && line == "" {
			return nil, fmt.Errorf("stdin holds no password: %w", err)
		}
		password = strings.TrimRight(line, "\r\n")
	}
	return &apiv1.Auth{Username: name, Password: password}, nil
}
