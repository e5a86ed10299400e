package resource

import (
	"errors"
	"math"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func TestSizesAndCPUs(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "512": 512, "512b": 512, "1k": 1024, "512m": 512 << 20, "1.5g": 3 << 29, "2GiB": 2 << 30, "1KB": 1024} {
		if got, err := ParseBytes(s); err != nil || got != want {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "m", "-1", "1x", "1i", "nan", "inf", "1e30", "99999999t", "1mm"} {
		if got, err := ParseBytes(s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for s, want := range map[string]int64{"1.5": 150_000, "0.001": 1_000, "2": 200_000} {
		if got, period, err := ParseCPUs(s); err != nil || got != want || period != 100_000 {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "NaN", "inf"} {
		if _, _, err := ParseCPUs(s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	f.Add("1.5g")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseBytes(s); err == nil && (n < 0 || n == math.MaxInt64) {
			t.Errorf("%q became %d", s, n)
		}
	})
}
