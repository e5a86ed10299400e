//go:build !seccomp

package libct

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/berth-run/berth/pkg/errs"
)

// takeSeccomp has nothing to take.
func takeSeccomp() {}

// compileSeccomp says that this build has no libseccomp.
func compileSeccomp(*configs.Seccomp) (*seccompProgram, error) {
	return nil, fmt.Errorf("built without seccomp: %w", errs.Unsupported)
}
