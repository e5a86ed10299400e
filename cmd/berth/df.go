package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// used is one row of `berth df`.
type used struct {
	Type        string `json:"type"`
	Total       int    `json:"total"`
	Active      int    `json:"active"`
	Size        int64  `json:"size"`
	Reclaimable int64  `json:"reclaimable"`
}

// systemCommand is the place of what Docker has there.
func systemCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "system", Short: "Manage what is on disk", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(dfCommand(a))
	return cmd
}

func dfCommand(a *app) *cobra.Command {
	var verbose bool
	var f format
	cmd := &cobra.Command{
		Use:   "df",
		Short: "Show what images, containers and volumes take on disk",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			resp, err := c.Admin.DiskUsage(ctx, &apiv1.DiskUsageRequest{})
			if err != nil {
				return err
			}
			if verbose && f == "" {
				usageTables(a.out, resp)
				return nil
			}
			rows := usageOf(resp)
			return f.print(a.out, rows, func(w io.Writer) { usageTable(w, rows) })
		}),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show each of them")
	f.flag(cmd, "the sums")
	return cmd
}

// usageOf adds up.
func usageOf(r *apiv1.DiskUsageResponse) []used {
	images, containers, volumes := used{Type: "Images", Size: r.ImagesSize, Reclaimable: r.ImagesReclaimable}, used{Type: "Containers"}, used{Type: "Local Volumes"}
	for _, i := range r.Images {
		images.Total++
		if i.Containers > 0 {
			images.Active++
		}
	}
	for _, c := range r.Containers {
		containers.add(c.Running, c.Size)
	}
	for _, v := range r.Volumes {
		volumes.add(v.Containers > 0, v.Size)
	}
	return []used{images, containers, volumes}
}

func (u *used) add(active bool, size int64) {
	u.Total++
	u.Size += size
	if active {
		u.Active++
	} else {
		u.Reclaimable += size
	}
}

func usageTable(w io.Writer, list []used) {
	var rows [][]string
	for _, u := range list {
		part := ""
		if u.Size > 0 {
			part = fmt.Sprintf(" (%d%%)", u.Reclaimable*100/u.Size)
		}
		rows = append(rows, []string{u.Type, fmt.Sprint(u.Total), fmt.Sprint(u.Active), size(u.Size), size(u.Reclaimable) + part})
	}
	table(w, []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"}, rows)
}

func usageTables(w io.Writer, r *apiv1.DiskUsageResponse) {
	var rows [][]string
	for _, u := range r.Images {
		v := image{ID: u.Image.Id, RepoTags: u.Image.RepoTags, RepoDigests: u.Image.RepoDigests}
		for _, name := range v.names() {
			repository, tag := cutTag(name)
			rows = append(rows, []string{
				shortImage(repository), tag, client.ShortID(v.ID), size(u.SharedSize + u.UniqueSize), size(u.SharedSize), size(u.UniqueSize), fmt.Sprint(u.Containers),
			})
		}
	}
	fmt.Fprintln(w, "Images:")
	table(w, []string{"REPOSITORY", "TAG", "IMAGE ID", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"}, rows)
	rows = nil
	for _, c := range r.Containers {
		state := "exited"
		if c.Running {
			state = "running"
		}
		rows = append(rows, []string{client.ShortID(c.Id), client.ShortID(c.Image), size(c.Size), state, c.Name})
	}
	fmt.Fprintln(w, "\nContainers:")
	table(w, []string{"CONTAINER ID", "IMAGE", "SIZE", "STATUS", "NAME"}, rows)
	rows = nil
	for _, v := range r.Volumes {
		rows = append(rows, []string{v.Name, fmt.Sprint(v.Containers), size(v.Size)})
	}
	fmt.Fprintln(w, "\nLocal Volumes:")
	table(w, []string{"VOLUME NAME", "LINKS", "SIZE"}, rows)
}
