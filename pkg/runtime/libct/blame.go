package libct

import (
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/program"
	"github.com/berth-run/berth/pkg/runtime/libct/resources"
)

// blame gives the error of a start its kind where the root file system has no such
// program to execute, the kernel no such AppArmor profile, or init next to no memory.
// init's own error crosses as text, and libcontainer's often, so we look ourselves.
func blame(err error, s *specs.Spec) error {
	if p := s.Process.ApparmorProfile; p != "" && !profileLoaded(profilesFile, p) {
		return fmt.Errorf("AppArmor profile %q is not loaded: %w: %w", p, errs.Invalid, err)
	}
	if s.Root != nil {
		err = program.Blame(err, s.Root.Path, s.Mounts, s.Process)
	}
	return resources.Blame(err, s.Linux.Resources)
}

// profilesFile has lines such as "name (enforce)".
const profilesFile = "/sys/kernel/security/apparmor/profiles"

// profileLoaded tells whether the profile may be there: it is surely not where the
// file has no line of it and the name is that of one profile, not of a stack.
func profileLoaded(file, name string) bool {
	all, err := os.ReadFile(file)
	return err != nil || strings.ContainsAny(name, ":&") || strings.Contains("\n"+string(all), "\n"+name+" (")
}
