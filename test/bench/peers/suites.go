package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/test/bench/harness"
)

// suiteRun is one call of berth-bench.
type suiteRun struct {
	// Name tells runs of one suite apart.
	Name string
	Args []string
	N    int
	// Once is for suites that take long and vary little.
	Once bool
}

var suiteRuns = []suiteRun{
	{Name: "lifecycle, host network", Args: []string{"lifecycle", "--network", "host"}, N: 30},
	{Name: "lifecycle, bridge network", Args: []string{"lifecycle", "--network", "pod"}, N: 20},
	{Name: "parallel, bridge network", Args: []string{"parallel", "--network", "pod", "--at", "8"}, N: 40},
	{Name: "exec", Args: []string{"exec", "--network", "host", "--at", "8"}, N: 100},
	{Name: "logs", Args: []string{"logs", "--network", "host"}, N: 3},
	{Name: "density", Args: []string{"density", "--network", "pod"}, N: 100, Once: true},
	{Name: "lists", Args: []string{"lists", "--network", "host"}, N: 20, Once: true},
	{Name: "probes", Args: []string{"probes", "--network", "host"}, N: 50, Once: true},
	{Name: pullSuite, Args: []string{"pull", "--ref", pullRef}, N: 3},
}

// benchRow is berth-bench's row, as far as it is used here.
type benchRow struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	N     int     `json:"n"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	Max   float64 `json:"max"`
	Value float64 `json:"value"`
	Note  string  `json:"note"`
	// Missing is the part of the work that the runtime did not do.
	Missing string `json:"missing"`
}

// figures are a row of each runtime for each suite and row name, with the
// order in which they came.
type figures struct {
	order []figureKey
	by    map[figureKey]map[string][]benchRow
}

// figureKey names a figure.
type figureKey struct{ Suite, Row string }

// Add records the rows of one round.
func (f *figures) Add(suite, runtime string, rows []benchRow) {
	if f.by == nil {
		f.by = map[figureKey]map[string][]benchRow{}
	}
	for _, r := range rows {
		k := figureKey{suite, r.Name}
		if f.by[k] == nil {
			f.by[k] = map[string][]benchRow{}
			f.order = append(f.order, k)
		}
		f.by[k][runtime] = append(f.by[k][runtime], r)
	}
}

// runSuites runs every suite on every runtime in turn, round by round.
func runSuites(ctx context.Context, s settings, runtimes []*harness.Daemon) (*figures, error) {
	f := &figures{}
	for round := range s.Rounds {
		for _, run := range suiteRuns {
			if round > 0 && run.Once || !strings.Contains(run.Name, s.Suites) {
				continue
			}
			for _, d := range runtimes {
				began := time.Now()
				rows, err := runSuite(ctx, s, run, d)
				if err != nil {
					return nil, fmt.Errorf("%s on %s: %w\n%s", run.Name, d.Name, err, harness.LastLines(filepath.Join(s.Dir, d.Name)))
				}
				fmt.Fprintf(os.Stderr, "round %d: %-26s %-11s %5.1f s\n", round+1, run.Name, d.Name, time.Since(began).Seconds())
				f.Add(run.Name, d.Name, rows)
			}
		}
	}
	return f, nil
}

// runSuite calls berth-bench once.
func runSuite(ctx context.Context, s settings, run suiteRun, d *harness.Daemon) ([]benchRow, error) {
	n := max(1, int(math.Round(float64(run.N)*s.Scale)))
	args := append(slices.Clone(run.Args), "--json", "--endpoint", "unix://"+d.Socket, "--image", harness.BusyboxRef,
		"--n", strconv.Itoa(n), "--cgroup-parent", harness.CgroupParent+"/"+d.Name, "--log-dir", filepath.Join(s.Dir, "logs"))
	c := exec.CommandContext(ctx, filepath.Join(s.Bin, "berth-bench"), args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, err
	}
	var r struct{ Rows []benchRow }
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("read berth-bench's report: %w", err)
	}
	return r.Rows, nil
}
