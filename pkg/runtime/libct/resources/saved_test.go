package resources

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/test/testutil"
)

func TestLimitsAreFoundByTheirFiles(t *testing.T) {
	for name, c := range map[string]struct {
		controllers []string // "" is v2
		files       []string
		unified     map[string]string
		want        []string
	}{
		"v2": {
			[]string{""},
			[]string{"/memory.max", "/memory.high", "/memory.low", "/hugetlb.2MB.max", "/hugetlb.2MB.rsvd.max", "/cpu.max"},
			map[string]string{"memory.high": "6", "memory.none": "6"},
			[]string{"/cpu.max", "/hugetlb.2MB.max", "/hugetlb.2MB.rsvd.max", "/memory.high", "/memory.max"},
		},
		"v1": {
			[]string{"memory", "cpu", ""},
			[]string{"memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "cpu/cpu.shares", "/memory.max"},
			nil,
			[]string{"cpu/cpu.shares", "memory/memory.limit_in_bytes"},
		},
	} {
		dir, paths := t.TempDir(), cgroup.Paths{}
		for _, controller := range c.controllers {
			paths[controller] = filepath.Join(dir, controller)
			if err := os.MkdirAll(paths[controller], 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("5\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want := Saved{}
		for _, f := range c.want {
			want[filepath.Join(dir, f)] = "5\n"
		}
		if got, err := Save(paths, c.unified); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, cmp.Diff(want, got))
		}
	}
}

func TestWhatWasSavedIsToldToSystemd(t *testing.T) {
	s := Saved{"/cg/c/memory.max": "max\n", "/cg/c/cpu.max": "max 100000\n", "/cg/c/cpuset.cpus": "\n"}
	if got := s.Unified(cgroup.Paths{"": "/cg/c"}); !cmp.Equal(got, map[string]string{"memory.max": "max", "cpu.max": "max 100000"}) {
		t.Errorf("got %v", got)
	}
	if got := s.Unified(cgroup.Paths{"": "/cg/c", "memory": "/cg/m"}); got != nil {
		t.Errorf("of v1: %v", got)
	}
}

// TestRestoreFindsTheOrder has limits of which the kernel refuses each while the
// other is as it is.
func TestRestoreFindsTheOrder(t *testing.T) {
	testutil.Root(t)
	dir := "/sys/fs/cgroup/memory/berth-saved-test"
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err != nil {
		t.Skip("only v1 has limits that depend on each other")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	limits := func(first, second string) {
		for _, l := range [][2]string{{"memory.limit_in_bytes", first}, {"memory.memsw.limit_in_bytes", second}} {
			if err := cgroup.Write(filepath.Join(dir, l[0]), l[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	paths := cgroup.Paths{"memory": dir}
	limits("67108864", "134217728")
	low, err := Save(paths, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cgroup.Write(filepath.Join(dir, "memory.memsw.limit_in_bytes"), "1073741824"); err != nil {
		t.Fatal(err)
	}
	limits("536870912", "536870912")
	high, err := Save(paths, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Saved{low, high, low} {
		if err := want.Restore(); err != nil {
			t.Error(err)
		}
		if got, err := Save(paths, nil); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	low[filepath.Join(dir, "memory.limit_in_bytes")] = "nonsense"
	if err := low.Restore(); err == nil {
		t.Error("what cannot be written is not told")
	}
}
