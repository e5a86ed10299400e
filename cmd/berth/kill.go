package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func killCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:               "kill CONTAINER...",
		Short:             "Send a signal to containers",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			signal, err := parseSignal(name)
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error { return a.killOne(ctx, c, name, signal) })
		}),
	}
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "the signal, by name or number")
	return cmd
}

func (a *app) killOne(ctx context.Context, c *client.Client, name string, signal unix.Signal) error {
	ctr, err := c.FindContainer(ctx, name)
	if err != nil {
		return err
	}
	if ctr.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("container %s does not run", name)
	}
	if _, err := c.Admin.Kill(ctx, &apiv1.KillRequest{ContainerId: ctr.Id, Signal: int32(signal)}); err != nil {
		return err
	}
	fmt.Fprintln(a.out, name)
	hintApplied(a, ctr)
	return nil
}

// hintApplied tells that what was ended may not stay so.
func hintApplied(a *app, ctr *runtimeapi.Container) {
	if ctr.Labels[apiv1.LabelOwner] == apiv1.OwnerManifest {
		pod := ctr.Labels[apiv1.LabelPodName]
		a.complain(fmt.Errorf("the applied pod %s starts its containers again as its restartPolicy says: berth delete %s ends it", pod, pod))
	}
}

// parseSignal reads KILL, SIGKILL or 9.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("signal %q: give a name as in TERM, or a number from 1 to 64", s)
}
