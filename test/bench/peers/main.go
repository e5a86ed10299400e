// Command peers measures Berth and containerd on the same machine, in the same
// run, with the same images and the same CNI configuration, and prints their
// figures side by side. `make bench-peers` runs it, as root; package harness says
// where.
//
// The two runtimes take turns, suite by suite and round by round, so that a noisy
// minute hits both.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/bench/harness"
)

// settings are the flags.
type settings struct {
	harness.Settings
	Rounds int
	Scale  float64
	JSON   string
	Check  bool
	Suites string
}

func main() {
	var s settings
	s.Flags(flag.CommandLine)
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each suite runs; figures are the median of the rounds")
	flag.Float64Var(&s.Scale, "scale", 1, "multiplies each suite's number of samples")
	flag.StringVar(&s.JSON, "json", "", "file to write the figures to")
	flag.BoolVar(&s.Check, "check", false, "exit with 1 where a threshold is missed")
	flag.StringVar(&s.Suites, "suites", "", "run only the suites whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := harness.Run(ctx, s.Settings, func(ctx context.Context) error { return measure(ctx, s) }); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}

// measure starts the runtimes, runs the suites and prints the table.
func measure(ctx context.Context, s settings) (err error) {
	if strings.Contains(pullSuite, s.Suites) {
		l, err := net.Listen("tcp", pullHost)
		if err != nil {
			return err
		}
		stop, err := serveImage(l, pullShape.Image())
		if err != nil {
			return err
		}
		defer stop()
	}
	var runtimes []*harness.Daemon
	defer func() {
		for _, r := range runtimes {
			r.Stop()
		}
	}()
	for _, start := range harness.Starters(s.Only) {
		r, err := start(ctx, s.Settings)
		if err != nil {
			return err
		}
		runtimes = append(runtimes, r)
	}
	f, err := runSuites(ctx, s, runtimes)
	if err != nil {
		return err
	}
	lines := compare(f)
	printTable(os.Stdout, lines)
	if s.JSON != "" {
		if err := writeJSON(s.JSON, lines); err != nil {
			return err
		}
	}
	if missed := failures(lines); s.Check && missed > 0 {
		return fmt.Errorf("%d thresholds missed", missed)
	}
	return nil
}
