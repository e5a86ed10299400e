package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// collectorAddress is where the shared node sends its traces.
const collectorAddress = "127.0.0.1:4317"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// debugSocket asks the shared node's debug socket.
func debugSocket(t *testing.T, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(berth.State(), "debug.sock"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://berth" + path)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func TestTheDashboardShowsMetricsThatThereAre(t *testing.T) {
	runPod(t, own).start(sleeper())
	_, err := berth.Runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "nobody", Cmd: []string{"true"}}) // one that fails
	if err == nil {
		t.Error("an exec in nobody")
	}
	_, text := debugSocket(t, "/metrics")
	data, err := os.ReadFile("../../contrib/grafana/berth.json")
	must(t, err)
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	must(t, json.Unmarshal(data, &dashboard))
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`\b(berth|process|go)_[a-z_]+`).FindAllString(target.Expr, -1) {
				shown[name] = true
			}
		}
	}
	served := regexp.MustCompile(`(?m)^(?:# TYPE )?([a-z_]+)[ {]`).FindAllStringSubmatch(text, -1)
	for name := range shown {
		if !slices.ContainsFunc(served, func(m []string) bool { return m[1] == name }) {
			t.Errorf("the dashboard shows %s, which is not served", name)
		}
	}
	if len(shown) < 10 {
		t.Errorf("the dashboard shows %v only", shown)
	}
	for _, want := range []string{`berth_containers{state="running"} `, `berth_stage_duration_seconds_count{stage="network attach"} `, `{stage="root file system"} `, `{stage="runtime Create"} `} {
		if !regexp.MustCompile(regexp.QuoteMeta(want) + `[1-9]`).MatchString(text) {
			t.Errorf("no %s", want)
		}
	}
	if code, text := debugSocket(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d, %s", code, text)
	}
	conn, err := grpc.NewClient("unix://"+berth.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	if h, err := health.NewHealthClient(conn).Check(t.Context(), &health.HealthCheckRequest{}); err != nil || h.Status != health.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health: %v, %v", h, err)
	}
	info, err := os.Stat(filepath.Join(berth.State(), "debug.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("debug socket: %v, %v", info.Mode(), err)
	}
}

// spans is a collector that keeps the parents of spans, by "trace name".
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu     sync.Mutex
	spans  map[string]string // name of the span to its id
	parent map[string]string // name of the span to its parent's id
}

func (s *spans) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range r.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.spans[span.Name], s.parent[span.Name] = string(span.SpanId), string(span.ParentSpanId)
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// child returns why a span is not there below another.
func (s *spans) child(name, parent string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spans[name] == "" || s.spans[parent] == "" || s.parent[name] != s.spans[parent] {
		return fmt.Errorf("span %q is not below %q: %v", name, parent, s.spans)
	}
	return nil
}

func TestATraceGoesFromTheClientThroughToTheWorker(t *testing.T) {
	l, err := net.Listen("tcp", collectorAddress)
	must(t, err)
	s := &spans{spans: map[string]string{}, parent: map[string]string{}}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	p := runPod(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01")
	config := sleeper()
	created, err := berth.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	must(t, err)
	_, err = berth.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId})
	must(t, err)
	_, err = berth.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: created.ContainerId, Cmd: []string{"/bin/true"}})
	must(t, err)
	next, err := berth.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: podConfig(t)})
	must(t, err)
	t.Cleanup((&pod{t, next.PodSandboxId, nil}).remove)
	ref := startRegistry(t, nil).Put("traced", "1", shipped(t))
	_, err = berth.Images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
	must(t, err)
	t.Cleanup(func() { removeImage(t, ref) })
	eventually(t, func() error {
		for _, pair := range [][2]string{
			{"root file system", "runtime.v1.RuntimeService/CreateContainer"},
			{"runtime Create", "runtime.v1.RuntimeService/CreateContainer"},
			{"init", "runtime Create"},
			{"gate", "runtime Start"},
			{"spawn", "runtime.v1.RuntimeService/ExecSync"},
			{"namespaces", "runtime CreatePod"},
			{"pull manifest", "runtime.v1.ImageService/PullImage"},
			{"pull content", "runtime.v1.ImageService/PullImage"},
		} {
			if err := s.child(pair[0], pair[1]); err != nil {
				return err
			}
		}
		return nil
	})
}
