package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// fact is one line of `berth info`.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func infoCommand(a *app) *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Tell how the daemon and its node are",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			facts, err := collectFacts(ctx, c, time.Now())
			if err != nil {
				return err
			}
			return f.print(a.out, facts, func(w io.Writer) {
				var rows [][]string
				for _, f := range facts[1:] {
					rows = append(rows, []string{f.Name + ":", f.Value})
				}
				table(w, []string{facts[0].Name + ":", facts[0].Value}, rows)
			})
		}),
	}
	f.flag(cmd, "the facts")
	return cmd
}

func collectFacts(ctx context.Context, c *client.Client, now time.Time) ([]fact, error) {
	info, err := c.Admin.Info(ctx, &apiv1.InfoRequest{})
	if err != nil {
		return nil, err
	}
	facts := daemonFacts(info, now)
	status, err := c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, condition := range status.GetStatus().GetConditions() {
		value := "yes"
		if !condition.Status {
			value = "no: " + condition.Reason + " " + condition.Message
		}
		facts = append(facts, fact{condition.Type, value})
	}
	counts, err := countFacts(ctx, c)
	if err != nil {
		return nil, err
	}
	facts = append(facts, counts...)
	for _, f := range info.Facts {
		facts = append(facts, fact{f.Name, f.Value})
	}
	return facts, nil
}

func daemonFacts(info *apiv1.InfoResponse, now time.Time) []fact {
	facts := []fact{
		{"berthd", info.Version + ", pid " + strconv.Itoa(int(info.Pid)) + ", up " + age(now, time.Unix(0, info.StartedAt))},
	}
	rt := info.GetRuntime()
	if rt.GetError() != "" {
		return append(facts, fact{"berth-runtime", "does not answer: " + rt.Error})
	}
	facts = append(facts,
		fact{"berth-runtime", rt.GetVersion() + ", anchor " + strconv.Itoa(int(rt.GetAnchorPid())) + ", worker " + strconv.Itoa(int(rt.GetWorkerPid()))},
		fact{"Cgroup driver", rt.GetCgroupDriver()},
		fact{"Root", info.Root},
		fact{"State", info.State},
	)
	for _, limit := range rt.GetLimits() {
		facts = append(facts, fact{"Limit", limit})
	}
	return facts
}

func countFacts(ctx context.Context, c *client.Client) ([]fact, error) {
	containers, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	pods, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	images, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	running := 0
	for _, ctr := range containers.Containers {
		if ctr.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			running++
		}
	}
	return []fact{
		{"Pods", strconv.Itoa(len(pods.Items))},
		{"Containers", strconv.Itoa(len(containers.Containers)) + ", " + strconv.Itoa(running) + " running"},
		{"Images", strconv.Itoa(len(images.Images))},
	}, nil
}
