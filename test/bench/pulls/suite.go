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
	Name  string
	Image recipe
	Slow  bool // 20 ms latency, and 50 MB/s a connection
	// Default and Tuned are how many times faster than containerd the pull has
	// to be; 0 for a figure that is only shown.
	Default, Tuned float64
}

var allSuites = []suite{
	{Name: "torch", Image: torch, Default: 5, Tuned: 2},
	{Name: "torch, slow network", Image: torch, Slow: true, Default: 5, Tuned: 2},
	{Name: "torch, zstd", Image: torchZstd},
	{Name: "single layer", Image: single, Default: 3},
	{Name: "small files", Image: smallFiles},
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
func (u suite) run(ctx context.Context, s settings) (results []result, err error) {
	stop, err := u.serve(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var runtimes []*harness.Daemon
	defer func() {
		for _, d := range runtimes {
			d.Stop()
		}
	}()
	for _, start := range starters(s.Only) {
		d, err := start(ctx, s.Settings)
		if err != nil {
			return nil, err
		}
		runtimes = append(runtimes, d)
		results = append(results, result{Suite: u.Name, Runtime: d.Name})
	}
	for round := range s.Rounds {
		for n, d := range runtimes {
			sample, err := pull(ctx, s, d)
			if err != nil {
				return nil, fmt.Errorf("%s: %w\n%s", d.Name, err, harness.LastLines(filepath.Join(s.Dir, d.Name)))
			}
			fmt.Fprintf(os.Stderr, "%s, round %d, %s: %s\n", u.Name, round+1, d.Name, sample)
			results[n].Samples = append(results[n].Samples, sample)
		}
	}
	u.judge(results)
	return results, nil
}

// serve serves the image.
func (u suite) serve(s settings) (stop func() error, err error) {
	built, err := u.Image.load(s.Images)
	if err != nil {
		return nil, err
	}
	r := &registry.Registry{}
	r.Add(repository, tag, built)
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

// pull pulls the image into a runtime that does not have it, and removes it.
func pull(ctx context.Context, s settings, d *harness.Daemon) (sample, error) {
	c, err := grpc.NewClient("unix://"+d.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	images, spec := cri.NewImageServiceClient(c), &cri.ImageSpec{Image: ref}
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
