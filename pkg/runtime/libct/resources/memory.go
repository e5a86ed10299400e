package resources

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// LowerMemory makes room for lower limits of memory, and of memory and swap, or
// says with errs.Conflict what is in use. v1 is given them here: its kernel
// reclaims what it can, and refuses the rest. v2's would kill for it, so that what
// cannot be reclaimed is refused before anything is written; with Linux before
// 5.19, which cannot be asked to reclaim, it kills. Higher limits are left alone.
func LowerMemory(p cgroup.Paths, m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	if len(p) == 1 && p[""] != "" {
		return reclaim(p[""], m.Limit)
	}
	// Memory comes first: its limit is never above that of the sum.
	if err := lower(p["memory"], "memory", m.Limit); err != nil {
		return err
	}
	return lower(p["memory"], "memory.memsw", m.Swap)
}

func lower(dir, prefix string, limit *int64) error {
	file := filepath.Join(dir, prefix+".limit_in_bytes")
	if limit == nil || *limit <= 0 || *limit >= number(file, math.MinInt64) {
		return nil
	}
	err := cgroup.Write(file, strconv.FormatInt(*limit, 10))
	if errors.Is(err, unix.EBUSY) {
		return inUse(prefix, *limit, number(filepath.Join(dir, prefix+".usage_in_bytes"), 0), err)
	}
	return err
}

func reclaim(dir string, limit *int64) error {
	current := filepath.Join(dir, "memory.current")
	if limit == nil || *limit <= 0 || number(current, 0) <= *limit {
		return nil
	}
	excess := number(current, 0) - *limit
	err := cgroup.Write(filepath.Join(dir, "memory.reclaim"), strconv.FormatInt(excess, 10)) // EAGAIN where it was less
	if cgroup.Gone(err) {
		return nil
	}
	if used := number(current, 0); used > *limit {
		return inUse("memory", *limit, used, err)
	}
	return nil
}

// inUse keeps the words of why, which may be nil.
func inUse(what string, limit, used int64, why error) error {
	text := ""
	if why != nil {
		text = ": " + why.Error()
	}
	return fmt.Errorf("limit of %d bytes on %s: %d are in use%s: %w", limit, what, used, text, errs.Conflict)
}

// number reads a file's only number, or returns other.
func number(path string, other int64) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return other
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return other
	}
	return n
}
