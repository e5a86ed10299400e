// Package telemetry is what operators watch berthd by: metrics for Prometheus,
// traces for an OpenTelemetry collector, profiles, and whether it is healthy.
//
// It is told of requests by package edge, and of their stages by package
// internal/stage; nothing else in Berth knows of it. Metrics are always counted.
// Spans are made where a collector is configured: they continue the trace of the
// client, such as kubelet, and have the stages that berth-runtime reports as
// children.
//
// Labels come from fixed sets: methods, codes, stages and states. Nothing that a
// client or an image says becomes a label.
package telemetry

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/berth-run/berth/pkg/internal/stage"
)

// Options say what is watched and who is told.
type Options struct {
	Version string
	// TraceEndpoint is the OTLP collector, as host:port, spoken to by gRPC without
	// TLS, or as https://host:port. Empty: no traces.
	TraceEndpoint string
	// TraceSamplingPerMillion is how many of a million requests that come without a
	// trace begin one. A client's decision always counts.
	TraceSamplingPerMillion int
	// Healthy returns what keeps the daemon from doing its work.
	Healthy func(context.Context) error
	// Counts are read whenever metrics are.
	Counts []Count
}

// Count is a metric that somebody else keeps.
type Count struct {
	Name, Help string
	// Total tells that it only grows.
	Total bool
	// Label distinguishes the values of Read by their keys. Empty: Read has one
	// value, whose key is not looked at.
	Label string
	Read  func() map[string]float64
}

// Telemetry watches. Make one with New.
type Telemetry struct {
	registry *prometheus.Registry
	healthy  func(context.Context) error
	requests *prometheus.HistogramVec
	failures *prometheus.CounterVec
	running  *prometheus.GaugeVec
	stages   *stages
	traces   *sdktrace.TracerProvider // nil: none
	tracer   tracer
}

// New begins to watch. The error says what is wrong with an endpoint; nobody has
// to listen there.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	t := &Telemetry{registry: prometheus.NewRegistry(), healthy: o.Healthy}
	if o.TraceEndpoint != "" {
		var err error
		if t.traces, err = provider(ctx, o); err != nil {
			return nil, err
		}
		t.tracer.Tracer = t.traces.Tracer(scope)
	}
	t.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "berth_rpc_duration_seconds", Help: "Time that requests took, by method.", Buckets: buckets,
	}, []string{"method"})
	t.failures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "berth_rpc_errors_total", Help: "Requests that failed, by method and gRPC code.",
	}, []string{"method", "code"})
	t.running = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "berth_rpc_in_flight", Help: "Requests that are being served, by method.",
	}, []string{"method"})
	t.stages = newStages()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": o.Version},
	})
	build.Set(1)
	t.registry.MustRegister(t.requests, t.failures, t.running, t.stages, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range o.Counts {
		t.registry.MustRegister(newCounted(c))
	}
	return t, nil
}

// Close sends what spans are left, until ctx ends.
func (t *Telemetry) Close(ctx context.Context) error {
	if t.traces == nil {
		return nil
	}
	return errors.Join(t.traces.ForceFlush(ctx), t.traces.Shutdown(ctx))
}

// Request implements edge.Observer.
func (t *Telemetry) Request(ctx context.Context, method string, header func(key string) string) (context.Context, func(code string)) {
	ctx, span := t.tracer.request(ctx, method, header)
	ctx = stage.With(ctx, watcher{t})
	timer := prometheus.NewTimer(t.requests.WithLabelValues(method))
	running := t.running.WithLabelValues(method)
	running.Inc()
	return ctx, func(code string) {
		running.Dec()
		timer.ObserveDuration()
		if code != codeOK {
			t.failures.WithLabelValues(method, code).Inc()
		}
		span.end(code)
	}
}

// codeOK is the name of gRPC's code for success.
const codeOK = "OK"
