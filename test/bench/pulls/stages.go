package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// stage is one stage of pulls by itself: in a process of its own, as the stages of a
// pull are together in berthd, with all processors.
type stage struct {
	Suite string     `json:"suite"`
	Name  string     `json:"name"`
	Runs  []stageRun `json:"runs"`
}

// stageRun is what it has taken once.
type stageRun struct {
	Wall time.Duration `json:"wall_ns"`
	CPU  time.Duration `json:"cpu_ns"`
}

func (s stage) wall() time.Duration {
	return middle(s.Runs, func(r stageRun) time.Duration { return r.Wall })
}

func (s stage) cpu() time.Duration {
	return middle(s.Runs, func(r stageRun) time.Duration { return r.CPU })
}

// runStages pulls the image with Berth, and runs each stage, in turn.
func (u suite) runStages(ctx context.Context, s settings, home string) (r report, err error) {
	if s.Only == harness.Containerd {
		return r, nil
	}
	runtimes, err := startAll(ctx, s, []harness.Starter{harness.StartBerth})
	defer stopAll(runtimes)
	if err != nil {
		return r, err
	}
	r.Results = []result{{Suite: u.Name, Runtime: harness.Berth}}
	for _, t := range tasks {
		r.Stages = append(r.Stages, stage{Suite: u.Name, Name: t.Name})
	}
	for round := range s.Rounds {
		for n, t := range tasks {
			run, err := alone(ctx, s, t.Name, home)
			if err != nil {
				return r, fmt.Errorf("%s: %w", t.Name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d, %s: %.2f s, %.2f s CPU\n", u.Name, round+1, t.Name, run.Wall.Seconds(), run.CPU.Seconds())
			r.Stages[n].Runs = append(r.Stages[n].Runs, run)
		}
		sample, err := u.pull(ctx, s, runtimes[0], round)
		if err != nil {
			return r, err
		}
		r.Results[0].Samples = append(r.Results[0].Samples, sample)
	}
	r.Verdicts = u.judgeStages(r.Stages, r.Results[0])
	printSuite(os.Stdout, u, r.Results)
	printStages(os.Stdout, r.Stages, r.Results[0])
	return r, nil
}

// alone runs one stage, as this program in another process.
func alone(ctx context.Context, s settings, name, home string) (run stageRun, err error) {
	disk, err := harness.DiskOf(s.Dir)
	if err != nil {
		return run, err
	}
	if err := rest(ctx, disk); err != nil {
		return run, err
	}
	self, err := os.Executable()
	if err != nil {
		return run, err
	}
	c := exec.CommandContext(ctx, self, "-stage", name, "-images", home, "-dir", s.Dir)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return run, err
	}
	return run, json.Unmarshal(out, &run)
}

// slowest is the stage that bounds a pull.
func slowest(all []stage) stage {
	return slices.MaxFunc(all, func(a, b stage) int { return int(a.wall() - b.wall()) })
}

// judgeStages compares the whole with its slowest stage.
func (u suite) judgeStages(all []stage, whole result) []verdict {
	v := &verdicts{suite: u.Name}
	v.most(u.Wanted.Slowest, share(whole.wall(), slowest(all).wall()), "x", "of the slowest stage alone: "+slowest(all).Name)
	return v.all
}

// printStages prints medians for people, with what bounds the whole.
func printStages(w io.Writer, all []stage, whole result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  stage alone\twall s\tCPU s\tthe pull's wall\t\n")
	var cpu time.Duration
	for _, s := range all {
		fmt.Fprintf(t, "  %s\t%.2f\t%.2f\t%.2fx\t\n", s.Name, s.wall().Seconds(), s.cpu().Seconds(), share(whole.wall(), s.wall()))
		if !s.partial() {
			cpu += s.cpu()
		}
	}
	cores := runtime.NumCPU()
	fmt.Fprintf(t, "  CPU of all on %d cores\t%.2f\t%.2f\t%.2fx\t\n", cores,
		cpu.Seconds()/float64(cores), cpu.Seconds(), share(whole.wall(), cpu/time.Duration(cores)))
	_ = t.Flush() // to a terminal or a pipe
}

// partial reports whether another stage does this one's work, too.
func (s stage) partial() bool { return s.Name == digestsPacked || s.Name == digestsPlain }
