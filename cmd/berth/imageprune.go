package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// imageCommand is the place of what Docker has there.
func imageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Manage images", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(imagePruneCommand(a))
	return cmd
}

func imagePruneCommand(a *app) *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that no container uses and that have no name",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			until, err := parseUntil(filters, time.Now())
			if err != nil {
				return err
			}
			if !force && !agrees(a.in, a.errOut, all) {
				return nil
			}
			resp, err := c.Admin.PruneImages(ctx, &apiv1.PruneImagesRequest{All: all, Until: until})
			if err != nil {
				return err
			}
			for _, i := range resp.Removed {
				for _, tag := range i.RepoTags {
					fmt.Fprintln(a.out, "Untagged:", tag)
				}
				fmt.Fprintln(a.out, "Deleted:", i.Id)
			}
			fmt.Fprintln(a.out, "Total reclaimed space:", size(resp.Freed))
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove images with a name too")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "until=`WHEN`: spare what was made later; a time, or how long ago, as in 24h")
	return cmd
}

// agrees asks a person; who is none has agreed by calling.
func agrees(in io.Reader, out io.Writer, all bool) bool {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return true
	}
	what := "that have no name"
	if all {
		what = "with a name or without"
	}
	fmt.Fprintf(out, "This removes all images %s that no container uses. Go on? [y/N] ", what)
	line, err := bufio.NewReader(io.LimitReader(in, 16)).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(line), "y")
}

// parseUntil reads the filters, of which until is the only one: a Unix time, a
// date, a time, or how long ago. It returns Unix time in nanoseconds, 0 without.
func parseUntil(filters []string, now time.Time) (int64, error) {
	var until time.Time
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		if key != "until" {
			return 0, fmt.Errorf("filter %q: until=WHEN is the only one", f)
		}
		t, err := parseWhen(value, now)
		if err != nil {
			return 0, fmt.Errorf("filter %q: %w", f, err)
		}
		if until.IsZero() || t.Before(until) {
			until = t
		}
	}
	if until.IsZero() {
		return 0, nil
	}
	return until.UnixNano(), nil
}

func parseWhen(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("write a time as in 2026-01-31T12:00:00, or how long ago as in 24h")
}
