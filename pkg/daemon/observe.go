package daemon

import (
	"context"
	"errors"
	"net"
	"sync"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/telemetry"
)

// telemetryOptions say what is counted. The services that the counts are of may
// not be there yet: nothing is read before they are.
func (s *services) telemetryOptions() telemetry.Options {
	c := s.o.Config.Telemetry
	return telemetry.Options{
		Version: s.o.Version, TraceEndpoint: c.TraceEndpoint, TraceSamplingPerMillion: c.TraceSamplingPerMillion,
		Healthy: func(ctx context.Context) error { return healthy(s.runtime)(ctx) },
		Counts: []telemetry.Count{
			{Name: "berth_pods", Help: "Pods by state.", Label: "state", Read: s.countPods},
			{Name: "berth_containers", Help: "Containers by state.", Label: "state", Read: s.countContainers},
			{Name: "berth_images", Help: "Images that are whole.", Read: func() map[string]float64 {
				return map[string]float64{"": float64(len(s.images.List()))}
			}},
			{Name: "berth_pulled_bytes_total", Help: "Bytes of blobs that came from registries.", Total: true, Read: func() map[string]float64 {
				return map[string]float64{"": float64(s.images.Received())}
			}},
			{Name: "berth_events_dropped_total", Help: "Readers of events that were cut off for being slow.", Total: true, Read: func() map[string]float64 {
				return map[string]float64{"": float64(s.criEvents.Dropped())}
			}},
		},
	}
}

// healthy tells why no container can be made.
func healthy(r runtime.Runtime) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := r.Version(ctx)
		return err
	}
}

func (s *services) countPods() map[string]float64 {
	out := map[string]float64{}
	for _, p := range s.pods.List() {
		out[string(p.State)]++
	}
	return out
}

func (s *services) countContainers() map[string]float64 {
	out := map[string]float64{}
	for _, c := range s.containers.List() {
		out[string(c.Status.State)]++
	}
	return out
}

// observe serves metrics and profiles, and returns what ends that. Only an address
// that somebody has configured must be free.
func (s *services) observe(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	log := klog.FromContext(ctx)
	serve := func(l net.Listener, deep bool) {
		serving.Go(func() {
			if err := s.telemetry.Serve(ctx, l, deep); err != nil {
				log.Error(err, "Metrics are not served any more", "address", l.Addr().String())
			}
		})
	}
	stop = func() { cancel(); serving.Wait() }
	l, err := telemetry.Listen(ctx, "unix://"+s.o.Config.DebugSocket())
	if err != nil {
		log.Error(err, "No profiles: the debug socket cannot be made")
	} else {
		serve(l, true)
	}
	address := s.o.Config.Telemetry.MetricsAddress
	if address == "" {
		return stop, nil
	}
	if l, err = telemetry.Listen(ctx, address); err != nil {
		stop()
		return nil, errors.Join(errors.New("metrics_address"), err)
	}
	serve(l, false)
	return stop, nil
}

// closeTelemetry sends the last spans.
func (s *services) closeTelemetry() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return s.telemetry.Close(ctx)
}
