package edge

import (
	"bytes"
	"context"
	"flag"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// observed is an Observer that notes what it is told.
type observed struct {
	mu                   sync.Mutex
	method, trace, ended string
}

func (o *observed) Request(ctx context.Context, method string, header func(string) string) (context.Context, func(string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.method, o.trace = method, header("traceparent")
	return ctx, func(code string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ended = code
	}
}

func TestChangesAreLoggedWithWhoMadeThem(t *testing.T) {
	var log bytes.Buffer
	flags := flag.NewFlagSet("", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "v": "1", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	klog.SetOutput(&log)
	t.Cleanup(func() { _ = flags.Set("v", "0"); _ = flags.Set("logtostderr", "true") })

	o := new(observed)
	server := NewServer(o)
	cri.RegisterRuntimeServiceServer(server, cri.UnimplementedRuntimeServiceServer{})
	client := cri.NewRuntimeServiceClient(serve(t, server))
	_, err := client.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: "p1", Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "web"}, Image: &cri.ImageSpec{Image: "app:1"}, Envs: []*cri.KeyValue{{Key: "PASSWORD", Value: []byte("secret")}},
	}})
	if status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	if _, err = client.ListContainers(t.Context(), &cri.ListContainersRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	server.Stop() // and all is logged
	klog.Flush()
	text := log.String()
	for _, want := range []string{"CreateContainer", `pod_sandbox_id="p1"`, `name="web"`, `image="app:1"`, "pid=", "uid=", `program="edge.test"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if strings.Contains(text, "secret") || strings.Count(text, `"Request" `) != 1 {
		t.Errorf("log says too much: %s", text)
	}
	if o.method != cri.RuntimeService_ListContainers_FullMethodName || o.ended != "Unimplemented" {
		t.Errorf("observed %+v", o)
	}
}

// serve has a server listen, and returns a connection to it.
func serve(t *testing.T, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
