package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func attachCommand(a *app) *cobra.Command {
	var noStdin bool
	cmd := &cobra.Command{
		Use:   "attach CONTAINER",
		Short: "Connect to a running container's input and output",
		Long: "attach connects to a running container until it ends; its exit code becomes this\n" +
			"program's. Signals are passed on to the container. From one with a terminal ^P ^Q\n" +
			"detach, and it runs on.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			ctr, err := c.FindContainer(ctx, args[0])
			if err != nil {
				return err
			}
			if ctr.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				return fmt.Errorf("container %s does not run: see what it wrote with berth logs %s", args[0], args[0])
			}
			return a.attachTo(context.WithoutCancel(ctx), c, ctr.Id, !noStdin)
		}),
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "show its output only")
	return cmd
}

func (a *app) attachTo(ctx context.Context, c *client.Client, id string, stdin bool) error {
	tty, err := c.HasTerminal(ctx, id)
	if err != nil {
		return err
	}
	var t *terminal
	if tty {
		if t, err = a.openTerminal(&runFlags{tty: true}); err != nil {
			return err
		}
	}
	defer t.restore()
	streams := client.AttachIO{Stdout: a.out, Size: t.size(), Sizes: t.sizes()}
	if !tty {
		streams.Stderr = a.errOut
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := &detacher{from: a.in, detach: cancel}
	switch {
	case stdin && tty:
		streams.Stdin = keys
	case stdin:
		streams.Stdin = a.in
	}
	attachment, err := c.Attach(ctx, id, streams)
	if err != nil {
		return err
	}
	if err := t.raw(); err != nil {
		return err
	}
	err = a.stay(ctx, c, id, attachment)
	if keys.detached.Load() {
		return nil
	}
	return err
}

// stay moves bytes and signals until the container has ended.
func (a *app) stay(ctx context.Context, c *client.Client, id string, attachment *client.Attachment) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	var end *apiv1.WaitResponse
	over := make(chan struct{})
	var g errgroup.Group
	g.Go(func() (err error) {
		defer close(over)
		end, err = c.Wait(ctx, id)
		return err
	})
	g.Go(func() error {
		a.forward(ctx, c, id, signals, over)
		return nil
	})
	g.Go(func() error { return ignoreHangup(attachment.Run(ctx)) })
	if err := g.Wait(); err != nil {
		return err
	}
	return a.ended(end)
}
