package host

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (f *Facts) probeCgroups(root, self string) {
	f.CgroupRoot = root
	if fsType(root) == unix.CGROUP2_SUPER_MAGIC {
		f.CgroupV2 = true
		f.Controllers = strings.Fields(read(filepath.Join(root, "cgroup.controllers")))
		slices.Sort(f.Controllers)
		f.Swap = swapV2(root, self, "/proc/swaps")
		return
	}
	f.CgroupHybrid = fsType(filepath.Join(root, "unified")) == unix.CGROUP2_SUPER_MAGIC
	f.Controllers = controllersV1(root, read(self))
	// swapaccount=0 and kernels without CONFIG_MEMCG_SWAP lack the file.
	f.Swap = exists(filepath.Join(root, "memory", "memory.memsw.limit_in_bytes"))
}

// controllersV1 lists the controllers in /proc/self/cgroup whose hierarchy is
// mounted below root.
func controllersV1(root, self string) []string {
	var out []string
	for line := range strings.Lines(self) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] == "" {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			if !strings.HasPrefix(c, "name=") && exists(filepath.Join(root, c)) {
				out = append(out, c)
			}
		}
	}
	slices.Sort(out)
	return out
}

// swapV2 looks for memory.swap.max in any cgroup that has the memory controller:
// this process's own, the root, which has none unless it is that of a namespace,
// and its children. Before the first container there may be none, and a kernel
// that has swap is taken to count it, as all do that are not told otherwise.
func swapV2(root, self, swaps string) bool {
	dirs := []string{filepath.Join(root, strings.TrimPrefix(read(self), "0::")), root}
	children, _ := os.ReadDir(root) // without any it is as if there were none
	for _, c := range children {
		dirs = append(dirs, filepath.Join(root, c.Name()))
	}
	for _, dir := range dirs {
		if exists(filepath.Join(dir, "memory.max")) {
			return exists(filepath.Join(dir, "memory.swap.max"))
		}
	}
	return exists(swaps)
}

// hugepageSizes reads hugepages-2048kB as 2MB.
func hugepageSizes(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		text := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB")
		kib, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			continue
		}
		out = append(out, hugepageName(kib))
	}
	slices.Sort(out)
	return out
}

// hugepageName writes a size as the hugetlb controller names its files.
func hugepageName(kib uint64) string {
	switch {
	case kib >= 1<<20:
		return strconv.FormatUint(kib>>20, 10) + "GB"
	case kib >= 1<<10:
		return strconv.FormatUint(kib>>10, 10) + "MB"
	}
	return strconv.FormatUint(kib, 10) + "KB"
}

func fsType(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0
	}
	return int64(st.Type)
}
