package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/bench/harness"
	"github.com/berth-run/berth/test/registry"
)

// The registry: plain HTTP on loopback, which all runtimes speak to without
// configuration, in the run's network namespace, where every port is free.
const (
	host       = "127.0.0.1:5000"
	repository = "bench/image"
	tag        = "1"
	ref        = host + "/" + repository + ":" + tag
)

// suite is one image on one kind of network.
type suite struct {
	Name   string
	Image  recipe
	Slow   bool // 20 ms latency, and 50 MB/s a connection
	Starts bool // containers are started from the image, too
	Stages bool // Berth alone, and each stage of its pulls by itself
	Wanted wanted
}

// bigImage is what an image of some GB may need.
var bigImage = wanted{Default: 5, Tuned: 2, CPU: 1. / 3, Written: 0.75, Disk: 1.05, PSS: 200e6}

var allSuites = []suite{
	{Name: "torch", Image: torch, Wanted: bigImage},
	{Name: "torch-slow", Image: torch, Slow: true, Wanted: bigImage},
	{Name: "torch-zstd", Image: torchZstd, Wanted: wanted{Disk: bigImage.Disk, PSS: bigImage.PSS}},
	{Name: "single", Image: single, Wanted: wanted{Default: 3, Disk: bigImage.Disk, PSS: bigImage.PSS}},
	{Name: "single-zstd", Image: singleZstd, Wanted: wanted{Disk: bigImage.Disk, PSS: bigImage.PSS}},
	{Name: "files", Image: smallFiles, Starts: true, Wanted: wanted{PSS: bigImage.PSS, Removal: 100 * time.Millisecond, Start: 1.2}},
	{Name: "stages", Image: torch, Stages: true, Wanted: wanted{Slowest: 1.4}},
}

func (u suite) make(ctx context.Context, dir string) error {
	if err := u.Image.make(ctx, dir); err != nil {
		return fmt.Errorf("make the image of %s: %w", u.Name, err)
	}
	return nil
}

// starters are the runtimes that take part.
func starters(only string) []harness.Starter {
	switch only {
	case harness.Berth:
		return []harness.Starter{harness.StartBerth}
	case harness.Containerd:
		return []harness.Starter{harness.StartBareContainerd, harness.StartTunedContainerd}
	}
	return []harness.Starter{harness.StartBareContainerd, harness.StartTunedContainerd, harness.StartBerth}
}

// run pulls the image with each runtime in turn.
func (u suite) run(ctx context.Context, s settings) (r report, err error) {
	home, drop, err := s.InMemory(filepath.Join(s.Images, u.Image.Name))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, drop()) }()
	image, err := load(home)
	if err != nil {
		return r, err
	}
	stop, err := u.serve(image, home)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if u.Stages {
		return u.runStages(ctx, s, home)
	}
	runtimes, err := startAll(ctx, s, starters(s.Only))
	defer stopAll(runtimes)
	if err != nil {
		return r, err
	}
	for _, d := range runtimes {
		r.Results = append(r.Results, result{Suite: u.Name, Runtime: d.Name})
	}
	for round := range s.Rounds {
		for n, d := range runtimes {
			sample, err := u.pull(ctx, s, d, round)
			if err != nil {
				return r, err
			}
			r.Results[n].Samples = append(r.Results[n].Samples, sample)
		}
	}
	for n, d := range runtimes {
		if !u.Starts || d.Name == harness.TunedContainerd { // which starts as the other does
			continue
		}
		if r.Results[n].Starts, err = u.start(ctx, s, d); err != nil {
			return r, explain(s, d, err)
		}
	}
	r.Verdicts = u.judge(r.Results, image.Unpacked)
	printSuite(os.Stdout, u, r.Results)
	return r, nil
}

// startAll starts runtimes, and returns those that it has started where it fails.
func startAll(ctx context.Context, s settings, some []harness.Starter) (runtimes []*harness.Daemon, err error) {
	for _, start := range some {
		d, err := start(ctx, s.Settings)
		if err != nil {
			return runtimes, err
		}
		runtimes = append(runtimes, d)
	}
	return runtimes, nil
}

func stopAll(runtimes []*harness.Daemon) {
	for _, d := range runtimes {
		d.Stop()
	}
}

// serve serves the image, whose files are in home.
func (u suite) serve(image made, home string) (stop func() error, err error) {
	r := &registry.Registry{}
	if err := image.add(r, home); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", host)
	if err != nil {
		return nil, err
	}
	if u.Slow {
		l = slowly(l)
	}
	server, done := &http.Server{Handler: r}, make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	return func() error {
		_ = server.Close() // Serve's error says more
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}

// pull measures one pull and tells what it has cost.
func (u suite) pull(ctx context.Context, s settings, d *harness.Daemon, round int) (sample, error) {
	got, err := pull(ctx, s, d)
	if err != nil {
		return got, explain(s, d, err)
	}
	fmt.Fprintf(os.Stderr, "%s, round %d, %s: %s\n", u.Name, round+1, d.Name, got)
	return got, nil
}

// explain says which runtime has failed, and what it has said.
func explain(s settings, d *harness.Daemon, err error) error {
	return fmt.Errorf("%s: %w\n%s", d.Name, err, harness.LastLines(filepath.Join(s.Dir, d.Name)))
}

// dial connects to a runtime's images.
func dial(d *harness.Daemon) (cri.ImageServiceClient, func() error, error) {
	c, err := grpc.NewClient("unix://"+d.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return cri.NewImageServiceClient(c), c.Close, nil
}

// start starts containers from the image, which the runtime does not have.
func (u suite) start(ctx context.Context, s settings, d *harness.Daemon) (*starts, error) {
	images, hangUp, err := dial(d)
	if err != nil {
		return nil, err
	}
	defer hangUp() //nolint:errcheck // nothing is left to say
	spec := &cri.ImageSpec{Image: ref}
	if _, err := images.PullImage(ctx, &cri.PullImageRequest{Image: spec}); err != nil {
		return nil, err
	}
	got, err := startContainers(ctx, s, d)
	if err != nil {
		return nil, err
	}
	_, err = images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec})
	return got, err
}

// pull pulls the image into a runtime that does not have it, and removes it.
func pull(ctx context.Context, s settings, d *harness.Daemon) (sample, error) {
	images, hangUp, err := dial(d)
	if err != nil {
		return sample{}, err
	}
	defer hangUp() //nolint:errcheck // nothing is left to say
	spec := &cri.ImageSpec{Image: ref}
	disk, err := harness.DiskOf(s.Dir)
	if err != nil {
		return sample{}, err
	}
	if err := rest(ctx, disk); err != nil {
		return sample{}, err
	}
	m, err := begin(d, disk)
	if err != nil {
		return sample{}, err
	}
	_, err = images.PullImage(ctx, &cri.PullImageRequest{Image: spec})
	got, endErr := m.end()
	if err := errors.Join(err, endErr); err != nil {
		return sample{}, err
	}
	began := time.Now()
	if _, err := images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec}); err != nil {
		return sample{}, err
	}
	got.Removed = time.Since(began)
	return got, nil
}
