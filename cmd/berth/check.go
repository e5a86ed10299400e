package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"

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
	var repair, verify, quiet bool
	var f format
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for records, mounts and processes that do not fit together",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			var r *reading
			if verify {
				r = newReading(a.errOut, quiet)
			}
			found, err := problems(ctx, c, r, repair)
			if err != nil {
				return err
			}
			list, left := []problem{}, 0
			for _, p := range found {
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
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what can be mended, and set damaged content aside for the next pull to bring again")
	cmd.Flags().BoolVar(&verify, "verify", false, "also read every byte of images again")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	f.flag(cmd, "the problems")
	return cmd
}

// problems asks for what is wrong. Content comes first: what is set aside then is
// missing in what fits together. An object is told of once.
func problems(ctx context.Context, c *client.Client, r *reading, repair bool) ([]*apiv1.Problem, error) {
	var found []*apiv1.Problem
	if r != nil {
		var err error
		if found, err = r.verify(ctx, c, repair); err != nil {
			return nil, err
		}
	}
	resp, err := c.Admin.Check(ctx, &apiv1.CheckRequest{Repair: repair})
	if err != nil {
		return nil, err
	}
	read := found
	for _, p := range resp.Problems {
		known := slices.ContainsFunc(read, func(r *apiv1.Problem) bool { return r.Store == p.Store && r.Object == p.Object })
		if !known || !p.Repaired && repair {
			found = append(found, p)
		}
	}
	return found, nil
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
		rows = append(rows, []string{p.Store, shortDigest(p.Object), p.What, repaired})
	}
	table(w, []string{"STORE", "OBJECT", "PROBLEM", "REPAIRED"}, rows)
}

var digestRE = regexp.MustCompile(`sha(256|512):[0-9a-f]{64,128}`)

// shortDigest shortens the digest in an object's name.
func shortDigest(object string) string { return digestRE.ReplaceAllStringFunc(object, client.ShortID) }

func problemsLeft(n int, repair bool) error {
	if repair {
		return fmt.Errorf("%s could not be repaired", plural(n, "problem"))
	}
	return fmt.Errorf("found %s: mend them with berth check --repair", plural(n, "problem"))
}
