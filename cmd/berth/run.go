package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// runFailed is the exit code of a run that could not run anything, as Docker's, but
// for a program that is at fault: see notRun.
const runFailed = 125

func runCommand(a *app) *cobra.Command {
	f := &runFlags{lookup: os.LookupEnv, readFile: os.Open}
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND] [ARG...]",
		Short: "Run a command in a new container",
		Long: "run makes a container in a pod of its own, both of the name that --name gives, and\n" +
			"runs it in the foreground: its output is shown, signals are passed on, and its exit\n" +
			"code becomes this program's, or 127 where the image has no such program, 126 where it\n" +
			"cannot be run, 125 for other errors. With -d it runs in the background.",
		Example: "  berth run --rm -it busybox\n" +
			"  berth run -d --name web -p 8080:80 -v $PWD/site:/usr/share/nginx/html:ro nginx\n" +
			"  berth run --rm --mount type=image,source=ghcr.io/org/model:1,target=/model busybox ls /model",
		DisableFlagsInUseLine: true, // what follows the image is the container's
		Args:                  cobra.MinimumNArgs(1),
		ValidArgsFunction:     a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			err := a.runImage(ctx, c, f, args)
			var exit *exitError
			if err == nil || errors.As(err, &exit) || errors.Is(err, context.Canceled) {
				return err
			}
			return &exitError{code: notRun(err), err: err}
		}),
	}
	f.add(cmd)
	return cmd
}

func (a *app) runImage(ctx context.Context, c *client.Client, f *runFlags, args []string) (err error) {
	if f.workingDir, err = os.Getwd(); err != nil {
		return err
	}
	o, err := f.options(args)
	if err != nil {
		return err
	}
	terminal, err := a.openTerminal(f)
	if err != nil {
		return err
	}
	p := a.newProgress(f.quiet)
	images, err := c.EnsureImages(ctx, o, client.PullPolicy(f.pull), p.show)
	p.end()
	if err != nil {
		return err
	}
	created, err := c.Create(ctx, o, images)
	if err != nil {
		return err
	}
	if f.detach {
		if err := c.Start(ctx, created); err != nil {
			return err
		}
		fmt.Fprintln(a.out, created.ContainerID)
		return nil
	}
	// From here on a signal is the container's, not this program's.
	ctx = context.WithoutCancel(ctx)
	end, err := a.foreground(ctx, c, created, f, terminal)
	if err != nil {
		return err
	}
	if end == nil { // the person has detached
		return nil
	}
	if f.remove {
		c.Discard(ctx, created)
	}
	return a.ended(end)
}

// ended turns the container's end into the program's.
func (a *app) ended(end *apiv1.WaitResponse) error {
	switch {
	case end.OomKilled:
		a.complain(errors.New("the container was killed for memory: give it more with --memory"))
	case end.ExitCode < 0:
		return &exitError{code: runFailed, err: errors.New("the container has ended, but its exit code could not be learnt")}
	}
	if end.ExitCode == 0 {
		return nil
	}
	return &exitError{code: int(end.ExitCode)}
}
