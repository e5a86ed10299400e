package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/berth-run/berth/pkg/internal/stage"
)

// request is one with a stage that fails, of which another process reports a part.
func request(t *testing.T, tel *Telemetry, header func(string) string) {
	t.Helper()
	ctx, done := tel.Request(t.Context(), "/runtime.v1.RuntimeService/RunPodSandbox", header)
	_ = stage.Run(ctx, "network attach", func(ctx context.Context) error {
		if stage.Deep(ctx) {
			stage.Past(ctx, []stage.Passed{{Name: "init", Begun: time.Now(), Took: time.Millisecond}})
		}
		return errors.New("no network")
	})
	done("Unknown")
}

func noHeader(string) string { return "" }

// serve serves tel on a socket of its own and returns a client of it.
func serve(t *testing.T, tel *Telemetry, deep bool) func(path string) (int, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := tel.Serve(ctx, l, deep); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	return func(path string) (int, string) {
		resp, err := client.Get("http://berth" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
}

func TestMetricsTellOfRequestsStagesAndCounts(t *testing.T) {
	tel, err := New(t.Context(), Options{Version: "1.2.3", Counts: []Count{
		{Name: "berth_pods", Help: "h", Label: "state", Read: func() map[string]float64 { return map[string]float64{"ready": 3} }},
		{Name: "berth_x_total", Help: "h", Total: true, Read: func() map[string]float64 { return map[string]float64{"": 7} }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	request(t, tel, noHeader)
	_, text := serve(t, tel, false)("/metrics")
	for _, want := range []string{
		`berth_rpc_duration_seconds_count{method="/runtime.v1.RuntimeService/RunPodSandbox"} 1`,
		`berth_rpc_errors_total{code="Unknown",method="/runtime.v1.RuntimeService/RunPodSandbox"} 1`,
		`berth_rpc_in_flight{method="/runtime.v1.RuntimeService/RunPodSandbox"} 0`,
		`berth_stage_duration_seconds_count{stage="network attach"} 1`,
		`berth_stage_errors_total{stage="network attach"} 1`,
		`berth_build_info{version="1.2.3"} 1`,
		`berth_pods{state="ready"} 3`,
		"# TYPE berth_x_total counter\nberth_x_total 7",
		"go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%.6000s", want, text)
		}
	}
}

func TestAStageThatLastsCountsAsStalled(t *testing.T) {
	s := newStages()
	end := s.begin("network attach")
	if now := s.stalledNow(time.Now()); now["network attach"] != 0 || len(now) != 1 {
		t.Errorf("at once: %v", now)
	}
	if later := s.stalledNow(time.Now().Add(2 * stalledAfter)); later["network attach"] != 1 {
		t.Errorf("later: %v", later)
	}
	long := s.begin("pull content")
	if later := s.stalledNow(time.Now().Add(time.Hour)); later["pull content"] != 0 {
		t.Errorf("a long pull: %v", later)
	}
	long(nil)
	end(nil)
	if after := s.stalledNow(time.Now().Add(time.Hour)); after["network attach"] != 0 {
		t.Errorf("after its end: %v", after)
	}
}

func TestHealthAndProfiles(t *testing.T) {
	var health error
	tel, err := New(t.Context(), Options{Healthy: func(context.Context) error { return health }})
	if err != nil {
		t.Fatal(err)
	}
	open, deep := serve(t, tel, false), serve(t, tel, true)
	if code, text := open("/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("healthy: %d %q", code, text)
	}
	health = errors.New("berth-runtime does not answer")
	if code, text := open("/healthz"); code != 503 || !strings.Contains(text, "berth-runtime") {
		t.Errorf("ill: %d %q", code, text)
	}
	if code, _ := open("/debug/pprof/goroutine?debug=1"); code != 404 {
		t.Errorf("profiles for everybody: %d", code)
	}
	if code, text := deep("/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("profile: %d %.100q", code, text)
	}
}

// sink is a collector.
type sink struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	got map[string]*spans.Span // by name
}

func (o *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				o.got[s.Name] = s
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesContinueTheClientsAndGoThroughToTheRuntime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, o := grpc.NewServer(), &sink{got: map[string]*spans.Span{}}
	collector.RegisterTraceServiceServer(server, o)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	tel, err := New(t.Context(), Options{Version: "v", TraceEndpoint: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	request(t, tel, noHeader) // begins no trace: nobody is sampled
	request(t, tel, func(key string) string {
		if key == "traceparent" {
			return "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01"
		}
		return ""
	})
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	root, attach, init := o.got["runtime.v1.RuntimeService/RunPodSandbox"], o.got["network attach"], o.got["init"]
	if len(o.got) != 3 || root == nil || attach == nil || init == nil {
		t.Fatalf("got %v", o.got)
	}
	if string(root.ParentSpanId) != "\x01\x02\x03\x04\x05\x06\x07\x08" || string(attach.ParentSpanId) != string(root.SpanId) || string(init.ParentSpanId) != string(attach.SpanId) {
		t.Errorf("parents: %x, %x of %x, %x of %x", root.ParentSpanId, attach.ParentSpanId, root.SpanId, init.ParentSpanId, attach.SpanId)
	}
	if root.Status.GetCode() != spans.Status_STATUS_CODE_ERROR || attach.Status.GetMessage() != "no network" {
		t.Errorf("status: %v, %v", root.Status, attach.Status)
	}
	if took := init.EndTimeUnixNano - init.StartTimeUnixNano; took != uint64(time.Millisecond) {
		t.Errorf("init took %d ns", took)
	}
}

func TestEndpointsThatCannotBeAreErrors(t *testing.T) {
	if _, err := New(t.Context(), Options{TraceEndpoint: "https://%zz"}); err == nil {
		t.Error("a broken URL")
	}
	file := filepath.Join(t.TempDir(), "file")
	l, err := Listen(t.Context(), "unix://"+file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Listen(t.Context(), "unix://"+file) // what a dead daemon left
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	l.Close()
	if _, err := Listen(t.Context(), "unix://"+t.TempDir()); err == nil {
		t.Error("a directory gave way to a socket")
	}
}
