package resources

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// TestMemoryInUseIsNotTakenOnV2 has files in the place of a cgroup, which give
// nothing back.
func TestMemoryInUseIsNotTakenOnV2(t *testing.T) {
	for name, c := range map[string]struct {
		limit     int64
		old       bool // the kernel cannot be asked to reclaim
		reclaimed string
		refused   bool
	}{
		"below what is in use":   {60, false, "40", true},
		"as much as is in use":   {100, false, "", false},
		"above it":               {200, false, "", false},
		"no limit":               {-1, false, "", false},
		"below, on an old Linux": {60, true, "", false},
	} {
		dir := t.TempDir()
		asked := filepath.Join(dir, "memory.reclaim")
		if err := os.WriteFile(filepath.Join(dir, "memory.current"), []byte("100\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if !c.old {
			if err := os.WriteFile(asked, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := LowerMemory(cgroup.Paths{"": dir}, &specs.LinuxMemory{Limit: &c.limit, Swap: &c.limit})
		if errors.Is(err, errs.Conflict) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "limit of 60 bytes") || !strings.Contains(err.Error(), "100 are in use")) {
			t.Errorf("%s: unclear: %v", name, err)
		}
		if got, _ := os.ReadFile(asked); string(got) != c.reclaimed {
			t.Errorf("%s: asked to reclaim %q", name, got)
		}
	}
	if err := LowerMemory(cgroup.Paths{"": t.TempDir()}, nil); err != nil {
		t.Error(err)
	}
}
