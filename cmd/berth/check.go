package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// problem is one line of `berth check`.
type problem struct {
	Store    string `json:"store"`
	Object   string `json:"object,omitempty"`
	What     string `json:"what"`
	Repaired bool   `json:"repaired"`
}

func checkCommand(a *app) *cobra.Command {
	var repair bool
	var f format
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for records, mounts and processes that do not fit together",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			resp, err := c.Admin.Check(ctx, &apiv1.CheckRequest{Repair: repair})
			if err != nil {
				return err
			}
			list, left := []problem{}, 0
			for _, p := range resp.Problems {
				list = append(list, problem{p.Store, p.Object, p.What, p.Repaired})
				if !p.Repaired {
					left++
				}
			}
			if err := f.print(a.out, list, func(w io.Writer) { problemTable(w, list) }); err != nil {
				return err
			}
			if left > 0 {
				return &exitError{code: 1, err: problemsLeft(left, repair)}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what can be mended")
	f.flag(cmd, "the problems")
	return cmd
}

func problemTable(w io.Writer, list []problem) {
	if len(list) == 0 {
		fmt.Fprintln(w, "Everything fits together.")
		return
	}
	var rows [][]string
	for _, p := range list {
		repaired := "no"
		if p.Repaired {
			repaired = "yes"
		}
		rows = append(rows, []string{p.Store, client.ShortID(p.Object), p.What, repaired})
	}
	table(w, []string{"STORE", "OBJECT", "PROBLEM", "REPAIRED"}, rows)
}

func problemsLeft(n int, repair bool) error {
	if repair {
		return fmt.Errorf("%s could not be repaired", plural(n, "problem"))
	}
	return fmt.Errorf("found %s: mend them with berth check --repair", plural(n, "problem"))
}
