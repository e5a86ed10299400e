// Command pulls measures how Berth and containerd pull large images, on the same
// machine, in the same run, from the same registry, and prints what each has cost:
// wall time, processor time, bytes written to the disk, disk and memory at their
// peak. `make bench-pull` runs it, as root; package harness says where.
//
// containerd takes part twice: with its defaults, on a node without programs for
// gzip, and with all that it has for large images. The runtimes take turns, with
// an empty page cache and after the disk has come to rest.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/bench/harness"
)

// settings are the flags.
type settings struct {
	harness.Settings
	Images string
	Rounds int
	JSON   string
	Check  bool
	Suites string
}

func main() {
	var s settings
	s.Flags(flag.CommandLine)
	flag.StringVar(&s.Images, "images", ".cache/images", "directory of the images, which are made if missing")
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each image is pulled; figures are medians")
	flag.StringVar(&s.JSON, "json", "", "file to write the figures to")
	flag.BoolVar(&s.Check, "check", false, "exit with 1 where a threshold is missed")
	flag.StringVar(&s.Suites, "suites", "", "run only the suites whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "pulls:", err)
		stop()
		os.Exit(1)
	}
}

// run makes the images while there is a network, and measures without one.
func run(ctx context.Context, s settings) error {
	var err error
	if s.Images, err = filepath.Abs(s.Images); err != nil {
		return err
	}
	if harness.Outside() {
		for _, u := range s.suites() {
			if err := u.make(ctx, s.Images); err != nil {
				return err
			}
		}
	}
	return harness.Run(ctx, s.Settings, func(ctx context.Context) error { return measure(ctx, s) })
}

// suites are those that are asked for.
func (s settings) suites() []suite {
	var some []suite
	for _, u := range allSuites {
		if strings.Contains(u.Name, s.Suites) {
			some = append(some, u)
		}
	}
	return some
}

// measure runs the suites and prints their figures.
func measure(ctx context.Context, s settings) error {
	var all []result
	for _, u := range s.suites() {
		results, err := u.run(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
		printSuite(os.Stdout, u, results)
		all = append(all, results...)
	}
	if s.JSON != "" {
		data, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.JSON, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if missed := failures(all); s.Check && missed > 0 {
		return fmt.Errorf("%d thresholds missed", missed)
	}
	return nil
}
