package edge

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthService is how the names of gRPC's health protocol begin.
const healthService = "/grpc.health.v1.Health/"

// Bounds of a look, and between two of them while somebody watches.
const (
	healthTimeout  = 3 * time.Second
	healthInterval = 5 * time.Second
)

// RegisterHealth adds gRPC's health protocol, which tells of the whole server: it
// has no names of services. healthy returns what keeps the daemon from its work. Who
// watches is sent away when stopping is closed; nil never is.
func RegisterHealth(g grpc.ServiceRegistrar, healthy func(context.Context) error, stopping <-chan struct{}) {
	health.RegisterHealthServer(g, &healthServer{healthy: healthy, stopping: stopping})
}

type healthServer struct {
	health.UnimplementedHealthServer
	healthy  func(context.Context) error
	stopping <-chan struct{}
}

// Check implements grpc_health_v1.HealthServer.
func (h *healthServer) Check(ctx context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	if r.GetService() != "" {
		return nil, status.Errorf(codes.NotFound, "service %q: only the server as a whole is known", r.GetService())
	}
	return h.look(ctx), nil
}

// List implements grpc_health_v1.HealthServer.
func (h *healthServer) List(ctx context.Context, _ *health.HealthListRequest) (*health.HealthListResponse, error) {
	return &health.HealthListResponse{Statuses: map[string]*health.HealthCheckResponse{"": h.look(ctx)}}, nil
}

// Watch implements grpc_health_v1.HealthServer: it tells the state, and then each
// change of it.
func (h *healthServer) Watch(r *health.HealthCheckRequest, stream health.Health_WatchServer) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	told := health.HealthCheckResponse_UNKNOWN
	for {
		now := &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVICE_UNKNOWN} // it may come, says gRPC
		if r.GetService() == "" {
			now = h.look(stream.Context())
		}
		if now.Status != told {
			if err := stream.Send(now); err != nil {
				return err
			}
			told = now.Status
		}
		select {
		case <-tick.C:
		case <-h.stopping:
			return status.Error(codes.Unavailable, "berthd stops")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (h *healthServer) look(ctx context.Context) *health.HealthCheckResponse {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if h.healthy(ctx) != nil {
		return &health.HealthCheckResponse{Status: health.HealthCheckResponse_NOT_SERVING}
	}
	return &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}
}
