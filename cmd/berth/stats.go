package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

// use is one line of `berth stats`. The network is the pod's.
type use struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Pod         string  `json:"pod"`
	CPUPercent  float64 `json:"cpuPercent"`
	Memory      uint64  `json:"memory"`
	MemoryLimit uint64  `json:"memoryLimit,omitempty"`
	Swap        uint64  `json:"swap"`
	Received    uint64  `json:"received"`
	Sent        uint64  `json:"sent"`
	Written     uint64  `json:"written"`
}

// statsEvery is how often the table changes: the daemon looks no more often.
const statsEvery = time.Second

// clearScreen also forgets what scrolled by while the table was longer.
const clearScreen = "\x1b[H\x1b[2J"

func statsCommand(a *app) *cobra.Command {
	var once bool
	var f format
	cmd := &cobra.Command{
		Use:               "stats [CONTAINER...]",
		Short:             "Show what containers use, until interrupted",
		ValidArgsFunction: a.completeContainers(true),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return showStats(ctx, c, args, once, func(list []use) error {
				if screen, ok := a.out.(*os.File); !once && f == "" && ok && term.IsTerminal(int(screen.Fd())) {
					fmt.Fprint(a.out, clearScreen)
				}
				return f.print(a.out, list, func(w io.Writer) { statsTable(w, list) })
			})
		}),
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "show it once")
	f.flag(cmd, "it")
	return cmd
}

// showStats calls show each second, or once. A rate needs two looks: nothing is
// shown of the first.
func showStats(ctx context.Context, c *client.Client, args []string, once bool, show func([]use) error) error {
	ids := map[string]bool{}
	for _, key := range args {
		found, err := c.FindContainer(ctx, key)
		if err != nil {
			return err
		}
		ids[found.Id] = true
	}
	if _, err := listStats(ctx, c, ids); err != nil {
		return err
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // that is how people end it
		case <-tick.C:
		}
		list, err := listStats(ctx, c, ids)
		if err == nil {
			err = show(list)
		}
		if err != nil || once {
			return err
		}
	}
}

func listStats(ctx context.Context, c *client.Client, ids map[string]bool) ([]use, error) {
	resp, err := c.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	list := []use{}
	for _, p := range resp.Stats {
		for _, s := range p.GetLinux().GetContainers() {
			if len(ids) == 0 || ids[s.GetAttributes().GetId()] {
				list = append(list, useOf(p, s))
			}
		}
	}
	slices.SortFunc(list, func(a, b use) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

func useOf(p *runtimeapi.PodSandboxStats, s *runtimeapi.ContainerStats) use {
	n := p.GetLinux().GetNetwork()
	u := use{
		ID: s.GetAttributes().GetId(), Name: s.GetAttributes().GetMetadata().GetName(), Pod: p.GetAttributes().GetMetadata().GetName(),
		CPUPercent: float64(s.GetCpu().GetUsageNanoCores().GetValue()) / 1e7, Memory: s.GetMemory().GetWorkingSetBytes().GetValue(),
		Swap: s.GetSwap().GetSwapUsageBytes().GetValue(), Written: s.GetWritableLayer().GetUsedBytes().GetValue(),
	}
	if left := s.GetMemory().GetAvailableBytes(); left != nil {
		u.MemoryLimit = u.Memory + left.GetValue()
	}
	for _, i := range append([]*runtimeapi.NetworkInterfaceUsage{n.GetDefaultInterface()}, n.GetInterfaces()...) {
		u.Received += i.GetRxBytes().GetValue()
		u.Sent += i.GetTxBytes().GetValue()
	}
	return u
}

func statsTable(w io.Writer, list []use) {
	var rows [][]string
	for _, u := range list {
		limit := "-"
		if u.MemoryLimit > 0 {
			limit = size(int64(u.MemoryLimit))
		}
		rows = append(rows, []string{
			client.ShortID(u.ID), u.Name, u.Pod, fmt.Sprintf("%.1f%%", u.CPUPercent), size(int64(u.Memory)) + " / " + limit,
			size(int64(u.Received)) + " / " + size(int64(u.Sent)), size(int64(u.Written)),
		})
	}
	table(w, []string{"CONTAINER ID", "NAME", "POD", "CPU", "MEMORY / LIMIT", "POD NET IN / OUT", "WRITTEN"}, rows)
}
