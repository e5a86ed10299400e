package telemetry

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-run/berth/pkg/internal/stage"
)

// stalledAfter is how long a stage may last before it counts as stalled.
const stalledAfter = 10 * time.Second

// unhurried are stages that last as long as a network takes, and have bounds of their
// own.
var unhurried = []string{"pull content"}

// buckets are in seconds, from what an exec takes to what a large pull takes.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// stages counts the stages of operations.
type stages struct {
	took    *prometheus.HistogramVec
	failed  *prometheus.CounterVec
	stalled *prometheus.Desc

	mu      sync.Mutex
	running map[*runningStage]struct{}
	seen    map[string]bool
}

type runningStage struct {
	name  string
	begun time.Time
}

var _ prometheus.Collector = (*stages)(nil)

func newStages() *stages {
	return &stages{
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "berth_stage_duration_seconds", Help: "Time that stages of operations took, such as attaching a pod to its network.", Buckets: buckets,
		}, []string{"stage"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "berth_stage_errors_total", Help: "Stages of operations that failed.",
		}, []string{"stage"}),
		stalled: prometheus.NewDesc("berth_operations_stalled", "Operations that have been in a stage for more than 10 seconds.", []string{"stage"}, nil),
		running: map[*runningStage]struct{}{}, seen: map[string]bool{},
	}
}

// Describe implements prometheus.Collector.
func (s *stages) Describe(ch chan<- *prometheus.Desc) {
	s.took.Describe(ch)
	s.failed.Describe(ch)
	ch <- s.stalled
}

// Collect implements prometheus.Collector.
func (s *stages) Collect(ch chan<- prometheus.Metric) {
	s.took.Collect(ch)
	s.failed.Collect(ch)
	for name, n := range s.stalledNow(time.Now()) {
		ch <- prometheus.MustNewConstMetric(s.stalled, prometheus.GaugeValue, float64(n), name)
	}
}

// stalledNow has each stage that ever ran.
func (s *stages) stalledNow(now time.Time) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for name := range s.seen {
		out[name] = 0
	}
	for r := range s.running {
		if now.Sub(r.begun) > stalledAfter && !slices.Contains(unhurried, r.name) {
			out[r.name]++
		}
	}
	return out
}

func (s *stages) begin(name string) func(error) {
	r := &runningStage{name: name, begun: time.Now()}
	s.mu.Lock()
	s.running[r], s.seen[name] = struct{}{}, true
	s.mu.Unlock()
	return func(err error) {
		s.mu.Lock()
		delete(s.running, r)
		s.mu.Unlock()
		s.over(name, time.Since(r.begun), err != nil)
	}
}

func (s *stages) over(name string, took time.Duration, failed bool) {
	s.took.WithLabelValues(name).Observe(took.Seconds())
	failures := s.failed.WithLabelValues(name) // 0 is a value too
	if failed {
		failures.Inc()
	}
}

// watcher is told of the stages of requests.
type watcher struct{ *Telemetry }

var _ stage.Watcher = watcher{}

// Begin implements stage.Watcher.
func (w watcher) Begin(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, span := w.tracer.stage(ctx, name)
	over := w.stages.begin(name)
	return ctx, func(err error) {
		over(err)
		span.endWith(err)
	}
}

// Deep implements stage.Watcher.
func (w watcher) Deep(ctx context.Context) bool { return w.tracer.recording(ctx) }

// Past implements stage.Watcher. Stages of berth-runtime are known of traced
// requests only: they would not make a metric.
func (w watcher) Past(ctx context.Context, p stage.Passed) { w.tracer.past(ctx, p) }

// counted is a Count as Prometheus wants it.
type counted struct {
	Count
	desc *prometheus.Desc
}

func newCounted(c Count) counted {
	var labels []string
	if c.Label != "" {
		labels = []string{c.Label}
	}
	return counted{c, prometheus.NewDesc(c.Name, c.Help, labels, nil)}
}

// Describe implements prometheus.Collector.
func (c counted) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c counted) Collect(ch chan<- prometheus.Metric) {
	kind := prometheus.GaugeValue
	if c.Total {
		kind = prometheus.CounterValue
	}
	for key, v := range c.Read() {
		var labels []string
		if c.Label != "" {
			labels = []string{key}
		}
		ch <- prometheus.MustNewConstMetric(c.desc, kind, v, labels...)
	}
}
