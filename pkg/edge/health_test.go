package edge

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestHealthIsAnsweredInGRPCsOwnWords(t *testing.T) {
	var ill atomic.Bool
	server := NewServer(nil)
	RegisterHealth(server, func(context.Context) error {
		if ill.Load() {
			return errors.New("berth-runtime does not answer")
		}
		return nil
	}, nil)
	client := health.NewHealthClient(serve(t, server))
	for _, want := range []health.HealthCheckResponse_ServingStatus{health.HealthCheckResponse_SERVING, health.HealthCheckResponse_NOT_SERVING} {
		ill.Store(want == health.HealthCheckResponse_NOT_SERVING)
		if r, err := client.Check(t.Context(), &health.HealthCheckRequest{}); err != nil || r.Status != want {
			t.Errorf("got %v, %v, want %s", r, err, want)
		}
		if r, err := client.List(t.Context(), &health.HealthListRequest{}); err != nil || r.Statuses[""].GetStatus() != want {
			t.Errorf("the list: %v, %v, want %s", r, err, want)
		}
	}
	if _, err := client.Check(t.Context(), &health.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
}

// told is a client that watches.
type told struct {
	grpc.ServerStream
	ctx context.Context
	got chan health.HealthCheckResponse_ServingStatus
}

func (s *told) Context() context.Context { return s.ctx }
func (s *told) Send(r *health.HealthCheckResponse) error {
	s.got <- r.Status
	return nil
}
func (s *told) SendHeader(metadata.MD) error { return nil }

func TestWhoWatchesHealthIsToldOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ill atomic.Bool
		h := &healthServer{healthy: func(context.Context) error {
			if ill.Load() {
				return errors.New("ill")
			}
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		s := &told{ctx: ctx, got: make(chan health.HealthCheckResponse_ServingStatus, 10)}
		ended := make(chan error)
		go func() { ended <- h.Watch(&health.HealthCheckRequest{}, s) }()
		if got := <-s.got; got != health.HealthCheckResponse_SERVING {
			t.Errorf("first %s", got)
		}
		<-time.After(3 * healthInterval) // nothing changes
		ill.Store(true)
		if got := <-s.got; got != health.HealthCheckResponse_NOT_SERVING || len(s.got) > 0 {
			t.Errorf("then %s, and %d more", got, len(s.got))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestHealthIsNoChange(t *testing.T) {
	if !readsOnly(healthService+"Check") || !readsOnly(healthService+"Watch") || readsOnly("/berth.v1.Admin/Check") {
		t.Error("audited wrongly")
	}
}
