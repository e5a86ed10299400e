package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/client/sessions"
)

func portForwardCommand(a *app) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "port-forward POD [LOCAL:]REMOTE...",
		Short: "Reach ports of a pod from here",
		Long: "port-forward listens on local ports and connects who comes to ports of the pod, from\n" +
			"inside it, until it is interrupted. A LOCAL of 0 takes a free one.",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.complete(podNames),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			pod, err := c.FindPod(ctx, args[0])
			if err != nil {
				return err
			}
			return forwardPorts(ctx, a, c, pod.Id, address, args[1:])
		}),
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1", "local address to listen on")
	return cmd
}

// forwardPorts listens until ctx ends.
func forwardPorts(ctx context.Context, a *app, c *client.Client, podID, address string, ports []string) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, p := range ports {
		local, remote, err := parsePorts(p)
		if err != nil {
			return err
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(local))))
		if err != nil {
			return err
		}
		defer l.Close()
		fmt.Fprintf(a.out, "Forwarding from %s -> %d\n", l.Addr(), remote)
		connections.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				connections.Go(func() {
					if err := sessions.Forward(ctx, c.Admin, podID, remote, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
						a.complain(fmt.Errorf("port %d: %w", remote, err))
					}
				})
			}
		})
	}
	<-ctx.Done()
	return ctx.Err()
}

func podNames(ctx context.Context, c *client.Client) ([]string, error) {
	resp, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range resp.Items {
		names = append(names, p.GetMetadata().GetName())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// parsePorts reads [LOCAL:]REMOTE.
func parsePorts(s string) (local, remote uint16, err error) {
	l, r, both := strings.Cut(s, ":")
	if !both {
		r = l
	}
	here, errLocal := strconv.ParseUint(l, 10, 16)
	there, errRemote := strconv.ParseUint(r, 10, 16)
	if both && l == "" {
		here, errLocal = 0, nil
	}
	if errLocal != nil || errRemote != nil || there == 0 {
		return 0, 0, fmt.Errorf("port %q: write [LOCAL:]REMOTE, as in 8080:80", s)
	}
	return uint16(here), uint16(there), nil
}
