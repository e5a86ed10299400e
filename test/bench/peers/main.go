// Command peers measures Berth and containerd on the same machine, in the same
// run, with the same images and the same CNI configuration, and prints their
// figures side by side. `make bench-peers` runs it, as root.
//
// Everything happens in namespaces of its own (network, mounts, processes) and
// under one temporary directory, so that nothing is left on the machine: the
// processes end with their PID namespace, the bridges with their network
// namespace, the mounts with theirs. The two runtimes take turns, suite by
// suite and round by round, so that a noisy minute hits both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are the flags.
type settings struct {
	Bin, Cache string
	Only       string
	Rounds     int
	Scale      float64
	JSON       string
	Check      bool
	Suites     string
	// Dir is the run's temporary directory.
	Dir string
}

func main() {
	var s settings
	flag.StringVar(&s.Bin, "bin", "bin", "directory of Berth's programs and of cni/")
	flag.StringVar(&s.Cache, "cache", ".cache/peers", "directory of the peer's programs, which are installed if missing")
	flag.StringVar(&s.Only, "only", "", "measure only berth or only containerd")
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each suite runs; figures are the median of the rounds")
	flag.Float64Var(&s.Scale, "scale", 1, "multiplies each suite's number of samples")
	flag.StringVar(&s.JSON, "json", "", "file to write the figures to")
	flag.BoolVar(&s.Check, "check", false, "exit with 1 where a threshold is missed")
	flag.StringVar(&s.Suites, "suites", "", "run only the suites whose name contains this")
	flag.StringVar(&s.Dir, "dir", "", "temporary directory of the run; set by the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}

// run is what each of the program's three processes does: see isolate.go.
func run(ctx context.Context, s settings) error {
	switch os.Getenv(stageVariable) {
	case stageInit:
		return reap(ctx)
	case stageMeasure:
		return measure(ctx, s)
	default:
		return outside(ctx, s)
	}
}

// outside installs what is missing while there is a network, starts the inner
// process and takes away what it leaves.
func outside(ctx context.Context, s settings) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, path := range []*string{&s.Bin, &s.Cache} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if s.Only != berthName {
		if err := install(ctx, s.Cache); err != nil {
			return err
		}
	}
	if s.Dir, err = os.MkdirTemp("", "berth-peers-"); err != nil {
		return err
	}
	defer func() {
		removeCgroups()
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}()
	return isolate(ctx, s)
}

// measure prepares images and runtimes, runs the suites and prints the table.
func measure(ctx context.Context, s settings) (err error) {
	if err := enter(s.Dir); err != nil {
		return err
	}
	images, err := makeImages(ctx, s.Dir)
	if err != nil {
		return err
	}
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
	var runtimes []*daemon
	defer func() {
		for _, r := range runtimes {
			r.Stop()
		}
	}()
	for _, start := range starters(s.Only) {
		r, err := start(ctx, s, images)
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
