package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// maxCreatedBy is how much of a step's command a table shows, as with Docker.
const maxCreatedBy = 45

// step is one entry of `berth history`.
type step struct {
	ID        string     `json:"id,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	CreatedBy string     `json:"createdBy,omitempty"`
	Size      int64      `json:"size"`
	Comment   string     `json:"comment,omitempty"`
}

func historyCommand(a *app) *cobra.Command {
	var whole bool
	var f format
	cmd := &cobra.Command{
		Use:               "history IMAGE",
		Short:             "Show the steps that an image was built in",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			resp, err := c.Admin.History(ctx, &apiv1.HistoryRequest{Image: args[0]})
			if err != nil {
				return err
			}
			steps := []step{}
			for _, l := range resp.Layers {
				s := step{ID: l.Id, CreatedBy: l.CreatedBy, Size: l.Size, Comment: l.Comment}
				if l.CreatedAt != 0 {
					t := time.Unix(0, l.CreatedAt).UTC()
					s.Created = &t
				}
				steps = append(steps, s)
			}
			return f.print(a.out, steps, func(w io.Writer) { historyTable(w, steps, whole) })
		}),
	}
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "show ids and commands whole")
	f.flag(cmd, "the steps")
	return cmd
}

func historyTable(w io.Writer, steps []step, whole bool) {
	var rows [][]string
	for _, s := range steps {
		id, by, created := s.ID, s.CreatedBy, "N/A"
		if !whole {
			id, by = client.ShortID(id), shorten(by, maxCreatedBy)
		}
		if id == "" {
			id = "<missing>"
		}
		if s.Created != nil {
			created = age(time.Now(), *s.Created) + " ago"
		}
		rows = append(rows, []string{id, created, by, size(s.Size), s.Comment})
	}
	table(w, []string{"IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"}, rows)
}
