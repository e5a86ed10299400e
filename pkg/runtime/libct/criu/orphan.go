package criu

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// orphanPoll is how often AwaitOrphans looks.
const orphanPoll = 50 * time.Millisecond

// AwaitOrphans waits for the end of CRIUs whose worker was killed: children of the
// process that has inherited them. A CRIU that ends a dump freezes what was frozen
// before, and would do so after it has been thawed.
func AwaitOrphans(ctx context.Context, parent int) error {
	for {
		there, err := hasOrphan(parent)
		if !there || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("CRIU of a worker that is gone does not end: %w", ctx.Err())
		case <-time.After(orphanPoll):
		}
	}
}

func hasOrphan(parent int) (bool, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), " (")
		at := strings.LastIndexByte(rest, ')')
		if fields := strings.Fields(rest[at+1:]); at >= 0 && rest[:at] == "criu" && len(fields) > 1 && fields[0] != "Z" && fields[1] == strconv.Itoa(parent) {
			return true, nil
		}
	}
	return false, nil
}
