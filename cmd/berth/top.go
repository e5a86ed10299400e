package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

func topCommand(a *app) *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "top POD",
		Short: "Show the processes of a pod",
		Args:  cobra.ExactArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := c.FindPod(ctx, args[0])
			if err != nil {
				return err
			}
			resp, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.Id}})
			if err != nil {
				return err
			}
			names, ids := map[string]string{}, []string{}
			for _, k := range resp.Containers {
				names[k.Id] = k.GetMetadata().GetName()
				ids = append(ids, k.Id)
			}
			list, err := client.Processes(ids)
			if err != nil {
				return err
			}
			return f.print(a.out, list, func(w io.Writer) { processTable(w, list, names) })
		}),
	}
	f.flag(cmd, "them")
	return cmd
}

func processTable(w io.Writer, list []client.Process, names map[string]string) {
	var rows [][]string
	for _, p := range list {
		rows = append(rows, []string{
			names[p.Container], strconv.Itoa(p.PID), strconv.Itoa(p.Parent), strconv.FormatUint(uint64(p.UID), 10), p.State,
			p.CPU.Round(10 * time.Millisecond).String(), size(p.Memory), shorten(p.Command, 80),
		})
	}
	table(w, []string{"CONTAINER", "PID", "PARENT", "UID", "STATE", "CPU TIME", "MEMORY", "COMMAND"}, rows)
}
