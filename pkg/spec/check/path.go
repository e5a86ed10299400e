// Package check refuses texts of configurations that cannot be what they should be,
// before anything is made of them. Its errors are errs.Invalid.
package check

import (
	"fmt"
	"path"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// The kernel's bounds of a path and of a name in it, in bytes.
const maxPath, maxName = 4095, 255

// Path refuses what can be no path in a container: one that is not absolute, that
// the kernel does not take, or that is another file for each process that looks.
func Path(p string) error {
	long := len(p) > maxPath
	for name := range strings.SplitSeq(p, "/") {
		long = long || len(name) > maxName
	}
	clean := path.Clean(p)
	switch {
	case !path.IsAbs(p), strings.ContainsRune(p, 0):
		return fmt.Errorf("%q is no absolute path: %w", p, errs.Invalid)
	case long:
		return fmt.Errorf("%.100q is longer than paths can be: %w", p, errs.Invalid)
	case strings.HasPrefix(clean, "/proc/self/"), strings.HasPrefix(clean, "/proc/thread-self/"):
		return fmt.Errorf("%q is another file for each process: %w", p, errs.Invalid)
	}
	return nil
}
