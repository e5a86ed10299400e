package resources

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// initMemory is more than init takes, in bytes, before it executes its program.
const initMemory = 8 << 20

// Blame adds a kind to the error of a start or of an update, where it has none and
// the limits are why: errs.Invalid for one that the kernel does not take, such as of
// a processor that is not there, and for memory in which nothing starts;
// errs.Conflict for one that it does not take now.
func Blame(err error, r *specs.LinuxResources) error {
	if errs.Of(err) != "" {
		return err
	}
	if r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 && *r.Memory.Limit < initMemory {
		return fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	var file *fs.PathError
	if !errors.As(err, &file) || !strings.HasPrefix(file.Path, "/sys/fs/cgroup/") {
		return err
	}
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", errs.Invalid, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %w", errs.Conflict, err)
	}
	return err
}
