package host

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is the running kernel's version.
type Kernel struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
	// Release is the whole text of uname -r.
	Release string `json:"release"`
}

// AtLeast tells whether the kernel is of the given version or newer.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// String returns the release.
func (k Kernel) String() string {
	if k.Release == "" {
		return fmt.Sprintf("%d.%d", k.Major, k.Minor)
	}
	return k.Release
}

func kernel() Kernel {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Kernel{}
	}
	return parseKernel(unix.ByteSliceToString(u.Release[:]))
}

// parseKernel reads "6.18.44-cloud-amd64" and "6.1-rc3"; what it cannot read
// counts as 0.
func parseKernel(release string) Kernel {
	k := Kernel{Release: release}
	major, rest, _ := strings.Cut(release, ".")
	k.Major, _ = strconv.Atoi(major)
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	k.Minor, _ = strconv.Atoi(rest)
	return k
}
