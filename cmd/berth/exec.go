package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/client/sessions"
	"github.com/berth-run/berth/pkg/errs"
)

func execCommand(a *app) *cobra.Command {
	f := &execFlags{}
	cmd := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARG...]",
		Short: "Run one more command in a container",
		Long: "exec runs a command in a running container to its end and exits with its exit code, or\n" +
			"with 127 where there is no such program, 126 where it cannot be run, 125 for other errors.",
		DisableFlagsInUseLine: true, // what follows the container is the command's
		Args:                  cobra.MinimumNArgs(2),
		ValidArgsFunction:     a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if f.timeout > 0 {
				if f.interactive || f.tty {
					return &exitError{code: runFailed, err: errors.New("--timeout is not for -i and -t")}
				}
				return a.execSync(ctx, c, args[0], args[1:], f.timeout)
			}
			return execStream(ctx, a, c, args[0], args[1:], f)
		}),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&f.interactive, "interactive", "i", false, "connect stdin")
	cmd.Flags().BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	cmd.Flags().Int64Var(&f.timeout, "timeout", 0, "seconds after which it is killed (0 means never); its output is shown at its end, 16 MiB at most")
	return cmd
}

type execFlags struct {
	interactive, tty bool
	timeout          int64
}

// execStream has the command's streams here.
func execStream(ctx context.Context, a *app, c *client.Client, name string, command []string, f *execFlags) error {
	t, err := a.openTerminal(&runFlags{interactive: f.interactive, tty: f.tty})
	if err != nil {
		return &exitError{code: runFailed, err: err}
	}
	defer t.restore()
	ctr, err := c.FindContainer(ctx, name)
	if err == nil {
		err = t.raw()
	}
	if err != nil {
		return &exitError{code: runFailed, err: err}
	}
	streams := sessions.IO{Stdout: a.out, Stderr: a.errOut, Sizes: t.sizes()}
	if f.interactive {
		streams.Stdin = a.in
	}
	exit, err := sessions.Exec(ctx, c.Admin, &apiv1.ExecStart{ContainerId: ctr.Id, Command: command, Terminal: f.tty, Size: t.size()}, streams)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		return &exitError{code: notRun(err), err: err}
	case exit != 0:
		return &exitError{code: exit}
	}
	return nil
}

// notRun is the exit code of a command that did not run, as a shell's and Docker's.
func notRun(err error) int {
	switch errs.Of(err) {
	case errs.NoProgram:
		return 127
	case errs.NoExecutable:
		return 126
	}
	return runFailed
}

func (a *app) execSync(ctx context.Context, c *client.Client, name string, command []string, timeout int64) error {
	ctr, err := c.FindContainer(ctx, name)
	if err != nil {
		return &exitError{code: runFailed, err: err}
	}
	resp, err := c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: ctr.Id, Cmd: command, Timeout: timeout})
	if err != nil {
		return &exitError{code: notRun(err), err: err}
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
