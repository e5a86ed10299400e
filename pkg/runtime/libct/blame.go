package libct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// blame marks the error of a start as errs.Invalid where the root file system has no
// such program to execute, the kernel no such AppArmor profile, or init has next to no
// memory. init's own error crosses as text, and libcontainer's often, so we look
// ourselves.
func blame(err error, s *specs.Spec) error {
	if p := s.Process.ApparmorProfile; p != "" && !profileLoaded(profilesFile, p) {
		return fmt.Errorf("AppArmor profile %q is not loaded: %w: %w", p, errs.Invalid, err)
	}
	if lacksProgram(s) || starves(s) {
		return fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	return refused(err)
}

// refused marks the error of a limit that the kernel does not take, such as of a
// processor that is not there, as errs.Invalid; of one that it does not take now, such
// as of less memory than is in use, as errs.Conflict.
func refused(err error) error {
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

// initMemory is more than init takes, in bytes, before it executes its program.
const initMemory = 8 << 20

// starves tells whether the limit may be what keeps init from its work.
func starves(s *specs.Spec) bool {
	r := s.Linux.Resources
	return r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 && *r.Memory.Limit < initMemory
}

// profilesFile has lines such as "name (enforce)".
const profilesFile = "/sys/kernel/security/apparmor/profiles"

// profileLoaded tells whether the profile may be there: it is surely not where the
// file has no line of it and the name is that of one profile, not of a stack.
func profileLoaded(file, name string) bool {
	all, err := os.ReadFile(file)
	return err != nil || strings.ContainsAny(name, ":&") || strings.Contains("\n"+string(all), "\n"+name+" (")
}

// lacksProgram tells whether there surely is no program to execute. What lies
// below a mount is not seen.
func lacksProgram(s *specs.Spec) bool {
	if s.Root == nil || executable(s) {
		return false
	}
	return !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return below(s.Process.Args[0], m.Destination) })
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// executable tells whether the program of the process is in the root file
// system, in one of the directories of its PATH where it names none.
func executable(s *specs.Spec) bool {
	name := s.Process.Args[0]
	directories := []string{s.Process.Cwd}
	if filepath.IsAbs(name) {
		directories = []string{"/"}
	} else if !strings.Contains(name, "/") {
		directories = nil
		for _, kv := range s.Process.Env {
			if path, ok := strings.CutPrefix(kv, "PATH="); ok {
				directories = filepath.SplitList(path)
			}
		}
	}
	for _, dir := range directories {
		path, err := securejoin.SecureJoin(s.Root.Path, filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}
