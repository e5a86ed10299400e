package client

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/errs"
)

func TestKindsCrossGRPC(t *testing.T) {
	for _, kind := range []errs.Kind{
		errs.NotFound, errs.Exists, errs.Invalid, errs.Conflict, errs.Unavailable, errs.Unsupported, errs.Timeout, errs.Denied, errs.Exhausted,
		errs.NoProgram, errs.NoExecutable,
	} {
		if got := kindOf(status.Convert(edge.Status(fmt.Errorf("container c: %w", kind)))); got != kind {
			t.Errorf("%s becomes %q", kind, got)
		}
	}
	for _, code := range []codes.Code{codes.Unknown, codes.Internal} {
		if got := kindOf(status.New(code, "odd")); got != "" {
			t.Errorf("%s becomes %q", code, got)
		}
	}
}
