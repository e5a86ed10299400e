package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/errs"
)

// versions is what `berth version` prints; a daemon that is away has none.
type versions struct {
	Client  string `json:"client"`
	Daemon  string `json:"daemon,omitempty"`
	Runtime string `json:"runtime,omitempty"`
	CRI     string `json:"cri,omitempty"`
}

func versionCommand(a *app) *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program, the daemon and the runtime",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			v := versions{Client: version}
			err := v.ask(ctx, c)
			if err != nil && !errors.Is(err, errs.Unavailable) && !errors.Is(err, errs.Denied) {
				return err
			}
			return f.print(a.out, v, func(w io.Writer) { v.table(w, err) })
		}),
	}
	f.flag(cmd, "the versions")
	return cmd
}

func (v *versions) ask(ctx context.Context, c *client.Client) error {
	info, err := c.Admin.Info(ctx, &apiv1.InfoRequest{})
	if err != nil {
		return err
	}
	v.Daemon, v.Runtime = info.Version, info.GetRuntime().GetVersion()
	cri, err := c.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return err
	}
	v.CRI = cri.RuntimeApiVersion
	return nil
}

func (v *versions) table(w io.Writer, away error) {
	fmt.Fprintln(w, "berth:         "+v.Client)
	if away != nil {
		fmt.Fprintln(w, "berthd:        "+away.Error())
		return
	}
	fmt.Fprintln(w, "berthd:        "+v.Daemon)
	fmt.Fprintln(w, "berth-runtime: "+v.Runtime)
	fmt.Fprintln(w, "CRI:           "+v.CRI)
}
