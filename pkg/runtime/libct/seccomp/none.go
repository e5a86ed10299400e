//go:build !seccomp

package seccomp

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/berth-run/berth/pkg/errs"
)

// Take has nothing to take.
func Take(int) {}

// file is never asked for: nothing is compiled.
func (p *Program) file() (*os.File, error) { return nil, errs.Unsupported }

// compile says that this build has no libseccomp.
func compile(*configs.Seccomp) (*Program, error) {
	return nil, fmt.Errorf("built without seccomp: %w", errs.Unsupported)
}
