package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

func execCommand(a *app) *cobra.Command {
	var interactive, tty bool
	var timeout int64
	cmd := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARG...]",
		Short: "Run one more command in a container",
		Long: "exec runs a command in a running container to its end, prints what it wrote (16 MiB\n" +
			"at most, stdout and stderr together) and exits with its exit code.",
		DisableFlagsInUseLine: true, // what follows the container is the command's
		Args:                  cobra.MinimumNArgs(2),
		ValidArgsFunction:     a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if interactive || tty {
				return &exitError{code: 125, err: errors.New("exec -i and -t are not supported yet: leave them out, or run the command with berth run -it")}
			}
			return a.execSync(ctx, c, args[0], args[1:], timeout)
		}),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "keep stdin open (not supported yet)")
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give it a terminal (not supported yet)")
	cmd.Flags().Int64Var(&timeout, "timeout", 0, "seconds after which it is killed (0 means never)")
	return cmd
}

func (a *app) execSync(ctx context.Context, c *client.Client, name string, command []string, timeout int64) error {
	ctr, err := c.FindContainer(ctx, name)
	if err != nil {
		return &exitError{code: 125, err: err}
	}
	resp, err := c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: ctr.Id, Cmd: command, Timeout: timeout})
	if err != nil {
		return &exitError{code: 125, err: err}
	}
	if _, err := a.out.Write(resp.Stdout); err != nil {
		return err
	}
	if _, err := a.errOut.Write(resp.Stderr); err != nil {
		return err
	}
	if resp.ExitCode != 0 {
		return &exitError{code: int(resp.ExitCode)}
	}
	return nil
}
