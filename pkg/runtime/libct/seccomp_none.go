//go:build !seccomp

package libct

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/berth-run/berth/pkg/errs"
)

// takeSeccomp has nothing to take.
func takeSeccomp() {}

// file is never asked for: nothing is compiled.
func (p *seccompProgram) file() (*os.File, error) { return nil, errs.Unsupported }

// compileSeccomp says that this build has no libseccomp.
func compileSeccomp(*configs.Seccomp) (*seccompProgram, error) {
	return nil, fmt.Errorf("built without seccomp: %w", errs.Unsupported)
}
