//go:build seccomp

package libct

import (
	"slices"

	libseccomp "github.com/seccomp/libseccomp-golang"
)

// allSyscallsBut names every system call that libseccomp knows, but these.
func allSyscallsBut(not ...string) []string {
	var names []string
	for n := range 470 {
		name, err := libseccomp.ScmpSyscall(n).GetName()
		if err == nil && !slices.Contains(not, name) {
			names = append(names, name)
		}
	}
	return names
}
