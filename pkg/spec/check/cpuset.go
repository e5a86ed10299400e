package check

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// CPUSet checks a list such as "0-3,8". Anything else could make one
// write to a cgroup file mean two.
func CPUSet(s string) error {
	if s == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		first, err := cpuNumber(low)
		if err != nil {
			return fmt.Errorf("cpuset %q: %w", s, errs.Invalid)
		}
		if !isRange {
			continue
		}
		if last, err := cpuNumber(high); err != nil || last < first {
			return fmt.Errorf("cpuset %q: %w", s, errs.Invalid)
		}
	}
	return nil
}

func cpuNumber(s string) (uint64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errs.Invalid
	}
	return strconv.ParseUint(s, 10, 16)
}
