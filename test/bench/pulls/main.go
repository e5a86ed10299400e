// Command pulls measures how Berth and containerd pull large images, on the same
// machine, in the same run, from the same registry, and prints what each has cost:
// wall time, processor time, bytes written to the disk, disk and memory at their
// peak. `make bench-pull` runs it, as root; package harness says where.
//
// containerd takes part twice: with its defaults, on a node without programs for
// gzip, and with all that it has for large images. The runtimes take turns, with
// an empty page cache and after the disk has come to rest. The registry has the
// image in memory, not on the disk that is measured: it stands for another machine.
// It does take processor time, that of nobody, on the same cores.
//
// The suite "stages" runs each stage of a pull alone, and compares the slowest with
// the whole.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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
	// Stage is set in a process that runs one stage; Images is the image then.
	Stage string
}

func main() {
	var s settings
	s.Flags(flag.CommandLine)
	flag.StringVar(&s.Images, "images", ".cache/images", "directory of the images, which are made if missing")
	flag.IntVar(&s.Rounds, "rounds", 3, "how often each image is pulled; figures are medians")
	flag.StringVar(&s.JSON, "json", "", "file to write the figures to")
	flag.BoolVar(&s.Check, "check", false, "exit with 1 where a threshold is missed")
	flag.StringVar(&s.Suites, "suites", "", "run only these suites, with commas between them, of: "+suiteNames())
	flag.StringVar(&s.Stage, "stage", "", "run one stage alone; set by the program itself")
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
	if s.Stage != "" {
		return runTask(ctx, s.Stage, s.Images, s.Dir)
	}
	some, err := suites(s.Suites)
	if err != nil {
		return err
	}
	if s.Images, err = filepath.Abs(s.Images); err != nil {
		return err
	}
	if harness.Outside() {
		for _, u := range some {
			if err := u.make(ctx, s.Images); err != nil {
				return err
			}
		}
	}
	return harness.Run(ctx, s.Settings, func(ctx context.Context) error { return measure(ctx, s, some) })
}

// suites are those that are asked for, by default all.
func suites(asked string) ([]suite, error) {
	if asked == "" {
		return allSuites, nil
	}
	var some []suite
	for name := range strings.SplitSeq(asked, ",") {
		n := slices.IndexFunc(allSuites, func(u suite) bool { return u.Name == name })
		if n < 0 {
			return nil, fmt.Errorf("no suite is called %q: there are %s", name, suiteNames())
		}
		some = append(some, allSuites[n])
	}
	return some, nil
}

func suiteNames() string {
	var all []string
	for _, u := range allSuites {
		all = append(all, u.Name)
	}
	return strings.Join(all, ", ")
}

// measure runs the suites and prints their figures.
func measure(ctx context.Context, s settings, some []suite) error {
	var all report
	for _, u := range some {
		r, err := u.run(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", u.Name, err)
		}
		printVerdicts(os.Stdout, r.Verdicts)
		all.Results, all.Stages = append(all.Results, r.Results...), append(all.Stages, r.Stages...)
		all.Verdicts = append(all.Verdicts, r.Verdicts...)
	}
	if s.JSON != "" {
		if err := all.write(s.JSON); err != nil {
			return err
		}
	}
	if missed := failures(all.Verdicts); s.Check && missed > 0 {
		return fmt.Errorf("%d thresholds missed", missed)
	}
	return nil
}
