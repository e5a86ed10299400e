package errs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func TestKindsCrossTheWire(t *testing.T) {
	for _, k := range []errs.Kind{errs.NotFound, errs.Exists, errs.Invalid, errs.Conflict, errs.Unavailable, errs.Unsupported, errs.Timeout, errs.Denied, errs.Exhausted, errs.NoProgram, errs.NoExecutable} {
		sent := fmt.Errorf("container c1: %w", k)
		got := errs.Decode(errs.Encode(sent))
		if !errors.Is(got, k) {
			t.Errorf("%q: kind lost", k)
		}
		if got.Error() != sent.Error() {
			t.Errorf("text: got %q, want %q", got, sent)
		}
	}
}

func TestDecodeKeepsTextOfUnknownKind(t *testing.T) {
	got := errs.Decode(&errs.Remote{Kind: "from the future", Message: "boom"})
	if got.Error() != "boom" || errs.Of(got) != "" {
		t.Errorf("got %q of kind %q", got, errs.Of(got))
	}
}

func TestAPathThatIsTooLongIsInvalid(t *testing.T) {
	_, err := os.Open("/" + strings.Repeat("x", 300))
	if k := errs.Of(fmt.Errorf("open log: %w", err)); k != errs.Invalid {
		t.Errorf("%v is %q", err, k)
	}
}

func TestDeadlineIsTimeout(t *testing.T) {
	if k := errs.Of(fmt.Errorf("wait: %w", context.DeadlineExceeded)); k != errs.Timeout {
		t.Errorf("got %q", k)
	}
	if errs.Encode(nil) != nil || errs.Decode(nil) != nil {
		t.Error("nil did not stay nil")
	}
}
