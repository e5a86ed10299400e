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
		f.Swap = swapV2(root, self)
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

// swapV2 looks for memory.swap.max, which the root cgroup never has, in this
// process's own cgroup or any child of the root.
func swapV2(root, self string) bool {
	own := strings.TrimPrefix(read(self), "0::")
	if exists(filepath.Join(root, own, "memory.swap.max")) {
		return true
	}
	children, err := os.ReadDir(root)
	if err != nil {
		return false
	}
	for _, c := range children {
		if c.IsDir() && exists(filepath.Join(root, c.Name(), "memory.swap.max")) {
			return true
		}
	}
	return false
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
