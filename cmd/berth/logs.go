package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/pkg/client"
)

func logsCommand(a *app) *cobra.Command {
	var tail, since string
	var o client.LogOptions
	cmd := &cobra.Command{
		Use:               "logs CONTAINER",
		Short:             "Show what a container has written",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainers(false),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) (err error) {
			if o.Tail, err = parseTail(tail); err != nil {
				return err
			}
			if o.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			ctr, err := c.FindContainer(ctx, args[0])
			if err != nil {
				return err
			}
			return c.Logs(ctx, ctr.Id, o, a.out, a.errOut)
		}),
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until the container has ended")
	cmd.Flags().StringVarP(&tail, "tail", "n", "all", "show the last lines only")
	cmd.Flags().StringVar(&since, "since", "", "show what is newer than a `TIME` (2026-01-02T15:04:05Z) or age (10m)")
	cmd.Flags().BoolVarP(&o.Timestamps, "timestamps", "t", false, "show when each line was written")
	return cmd
}

// parseTail reads a number of lines, or "all", which is -1.
func parseTail(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 {
		return 0, fmt.Errorf("tail %q: give a number of lines, or all", s)
	}
	return n, nil
}

// parseSince reads an age, a time, a date or seconds since 1970.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d.Abs()), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("since %q: give an age as in 10m, or a time as in 2026-01-02T15:04:05Z", s)
}
