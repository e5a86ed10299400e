package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// advice is one finding of `berth doctor`.
type advice struct {
	Needed bool   `json:"needed"`
	What   string `json:"what"`
	Do     string `json:"do"`
}

func doctorCommand(a *app) *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lacks, and what to do about it",
		Long:  "Say what this host lacks, and what to do about it. The exit code is 1 where something is missing that pods need.",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			info, err := c.Admin.Info(ctx, &apiv1.InfoRequest{Advice: true})
			if err != nil {
				return err
			}
			list, needed := []advice{}, 0
			for _, found := range info.Advice {
				list = append(list, advice{found.Needed, found.What, found.Do})
				if found.Needed {
					needed++
				}
			}
			if err := f.print(a.out, list, func(w io.Writer) { adviceText(w, list) }); err != nil {
				return err
			}
			if needed > 0 {
				return &exitError{code: 1, err: fmt.Errorf("pods cannot run here as they should: %d of the above must be mended", needed)}
			}
			return nil
		}),
	}
	f.flag(cmd, "the findings")
	return cmd
}

func adviceText(w io.Writer, list []advice) {
	if len(list) == 0 {
		fmt.Fprintln(w, "This host has all that Berth knows to use.")
		return
	}
	for _, found := range list {
		kind := "missing"
		if found.Needed {
			kind = "needed "
		}
		fmt.Fprintf(w, "%s  %s\n         → %s\n", kind, found.What, found.Do)
	}
}
