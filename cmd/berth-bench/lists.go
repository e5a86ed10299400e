package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func listsCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "lists",
		Short: "Lists, statuses and stats with --pods pods up",
	}
	c.Flags().IntVar(&o.Pods, "pods", 100, "how many pods are up")
	return c
}

// poll is one of the calls that kubelet repeats all the time. What a runtime may
// keep for a moment is asked for as seldom as kubelet does at most.
type poll struct {
	name  string
	call  func(ctx context.Context) error
	every time.Duration
}

// polls are what kubelet calls for all pods.
func (d *driver) polls() []poll {
	return []poll{
		{"ListPodSandbox", func(ctx context.Context) error {
			_, err := d.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
			return err
		}, 0},
		{"ListContainers", func(ctx context.Context) error {
			_, err := d.ListContainers(ctx, &cri.ListContainersRequest{})
			return err
		}, 0},
		{"ListContainerStats", func(ctx context.Context) error {
			_, err := d.ListContainerStats(ctx, &cri.ListContainerStatsRequest{})
			return err
		}, time.Second},
		{"ListPodSandboxStats", func(ctx context.Context) error {
			_, err := d.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
			return err
		}, time.Second},
	}
}

// statuses are what kubelet calls for one pod.
func (d *driver) statuses(p *pod) []poll {
	return []poll{
		{"PodSandboxStatus", func(ctx context.Context) error {
			_, err := d.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
			return err
		}, 0},
		{"ContainerStatus", func(ctx context.Context) error {
			_, err := d.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: p.Container})
			return err
		}, 0},
		{"Status", func(ctx context.Context) error {
			_, err := d.Status(ctx, &cri.StatusRequest{})
			return err
		}, 0},
	}
}

// lists measures each call N times while Pods pods are up.
func lists(ctx context.Context, d *driver) (report, error) {
	if d.Pods < 1 {
		return report{}, errors.New("lists needs at least one pod")
	}
	pods, err := d.upMany(ctx, d.Pods, 4)
	if err != nil {
		return report{}, err
	}
	var rows []row
	for _, c := range append(d.polls(), d.statuses(pods[0])...) {
		r, err := d.repeat(ctx, c)
		if err != nil {
			return report{}, err
		}
		rows = append(rows, r)
	}
	return report{Rows: rows}, d.downMany(ctx, pods, 4)
}

// repeat measures one call. A call that the runtime does not have, or that
// fails with these pods, is a row that says so.
func (d *driver) repeat(ctx context.Context, c poll) (row, error) {
	var t timings
	for i := range d.Warmup + d.N {
		into := &t
		if i < d.Warmup {
			into = &timings{}
		}
		if err := pause(ctx, c.every); err != nil {
			return row{}, err
		}
		if _, err := into.Time(c.name, func() error { return c.call(ctx) }); err != nil {
			if ctx.Err() != nil {
				return row{}, ctx.Err()
			}
			return row{Name: c.name, Unit: "ms", Note: complaint(err)}, nil
		}
	}
	return t.by[c.name].Row(c.name), nil
}

// complaint says in few words why a call gave no figure.
func complaint(err error) string {
	if status.Code(err) == codes.Unimplemented {
		return "not implemented"
	}
	return fmt.Sprintf("fails: %v", err)
}
