// Package resource reads what `berth run` is told of the machine's resources.
package resource

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// ParseBytes reads a size as Docker takes it: a number, perhaps with a fraction,
// and b, k, m, g or t, each 1024 times the one before, perhaps as KiB or KB.
func ParseBytes(s string) (int64, error) {
	lower := strings.ToLower(strings.TrimSpace(s))
	number := strings.TrimRight(lower, "bikmgt")
	unit := lower[len(number):]
	shift, ok := map[string]uint{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")]
	if unit == "i" || unit == "ib" {
		ok = false
	}
	n, err := strconv.ParseFloat(number, 64)
	bytes := n * float64(uint64(1)<<shift)
	if !ok || err != nil || !(n >= 0) || bytes >= math.MaxInt64 {
		return 0, invalid("size %q: write a number and b, k, m, g or t, as in 512m", s)
	}
	return int64(bytes), nil
}

// The period that quotas are for, and the least quota the kernel takes, in µs.
const (
	cpuPeriod = 100_000
	minQuota  = 1_000
)

// ParseCPUs reads a number of CPUs, as in 1.5, and returns the quota for the
// period that goes with it.
func ParseCPUs(s string) (quota, period int64, err error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n > 0) || n > 8192 {
		return 0, 0, invalid("cpus %q: write a number above 0, as in 1.5", s)
	}
	return max(int64(n*cpuPeriod), minQuota), cpuPeriod, nil
}

// invalid makes an error whose text is for a person, without its kind's own words.
func invalid(format string, args ...any) error {
	return &errs.Remote{Kind: errs.Invalid, Message: fmt.Sprintf(format, args...)}
}
