package edge

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-run/berth/pkg/errs"
)

func TestStatusCarriesTheKindsCode(t *testing.T) {
	for err, want := range map[error]codes.Code{
		fmt.Errorf("pod x: %w", errs.NotFound):       codes.NotFound,
		fmt.Errorf("pod x: %w", errs.Conflict):       codes.FailedPrecondition,
		context.DeadlineExceeded:                     codes.DeadlineExceeded,
		context.Canceled:                             codes.Canceled,
		errors.New("anything"):                       codes.Unknown,
		status.Error(codes.Aborted, "already there"): codes.Aborted,
	} {
		if got := status.Code(Status(err)); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
	for kind := range statusCodes {
		if status.Code(Status(kind)) == codes.Unknown {
			t.Errorf("%v has no code", kind)
		}
	}
}

func TestPanicEndsTheRequestOnly(t *testing.T) {
	var s interceptor
	_, err := s.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/x/Y"}, func(context.Context, any) (any, error) { panic("boom") })
	if status.Code(err) != codes.Unknown {
		t.Errorf("got %v", err)
	}
}
