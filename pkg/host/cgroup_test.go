package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSwapOfVersion2IsFoundBeforeAnyContainer(t *testing.T) {
	for name, k := range map[string]struct {
		files []string
		want  bool
	}{
		"own cgroup":             {[]string{"own/memory.max", "own/memory.swap.max"}, true},
		"root of a namespace":    {[]string{"memory.max", "memory.swap.max"}, true},
		"another cgroup":         {[]string{"other/memory.max", "other/memory.swap.max"}, true},
		"not counted":            {[]string{"other/memory.max", "swaps"}, false},
		"no cgroup with memory":  {[]string{"other/cgroup.procs", "swaps"}, true},
		"a kernel without swap":  {[]string{"other/cgroup.procs"}, false},
		"neither cgroup nor own": {[]string{"swaps"}, true},
	} {
		root := t.TempDir()
		for _, f := range append(k.files, "self") {
			path := filepath.Join(root, f)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("0::/own\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := swapV2(root, filepath.Join(root, "self"), filepath.Join(root, "swaps")); got != k.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
