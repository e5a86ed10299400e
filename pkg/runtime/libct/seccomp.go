package libct

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// To compile the default profile takes 12 ms, more than all the rest of a
// container's start, and libcontainer's init does it each time. The engine
// compiles each profile once. Create gives the program to init, in a memory
// file, with a stand-in for the profile that is quick to read; seccomp_given.c
// puts the program in its place. Execs take it from here.

// seccompProgram is a filter as the kernel takes it.
type seccompProgram struct {
	flags uint32
	code  []byte // struct sock_filter, one after the other; empty: no filter
}

// seccompLabel begins the label of a container's configuration that names its
// program; what follows is the name of a file in seccompPrograms.dir.
const seccompLabel = "berth.seccomp="

// maxPrograms bounds the cache: nodes have few profiles.
const maxPrograms = 64

// seccompPrograms keeps the programs of profiles, by a digest of these: in
// memory, and in dir (tmpfs) for the workers to come.
type seccompPrograms struct {
	dir string

	mu       sync.Mutex
	programs map[string]*seccompProgram
}

// of returns the program of a profile, and its name.
func (s *seccompPrograms) of(profile *configs.Seccomp) (*seccompProgram, string, error) {
	text, err := json.Marshal(profile)
	if err != nil {
		return nil, "", fmt.Errorf("seccomp profile: %w", err)
	}
	sum := sha256.Sum256(text)
	name := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock() // held while one is made: who else asks wants the same one
	if p := s.programs[name]; p != nil {
		return p, name, nil
	}
	p, err := compileSeccomp(profile)
	if err != nil {
		return nil, "", err
	}
	data := append(binary.NativeEndian.AppendUint32(nil, p.flags), p.code...)
	if err := statefile.WriteBytes(filepath.Join(s.dir, name), data, 0o600, false); err != nil {
		return nil, "", fmt.Errorf("keep seccomp program: %w", err)
	}
	s.keepLocked(name, p)
	return p, name, nil
}

// named returns a program that this worker or an earlier one has made.
func (s *seccompPrograms) named(name string) (*seccompProgram, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.programs[name]; p != nil {
		return p, nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return nil, fmt.Errorf("seccomp program: %w", err)
	}
	if len(data) <= 4 {
		return nil, fmt.Errorf("seccomp program %s is empty", name)
	}
	p := &seccompProgram{flags: binary.NativeEndian.Uint32(data), code: data[4:]}
	s.keepLocked(name, p)
	return p, nil
}

func (s *seccompPrograms) keepLocked(name string, p *seccompProgram) {
	if s.programs == nil || len(s.programs) >= maxPrograms {
		s.programs = map[string]*seccompProgram{}
	}
	s.programs[name] = p
}

// seccompProgram returns the filter of the container's execs, which is that of
// its first process.
func (c *container) seccompProgram() (*seccompProgram, error) {
	for _, label := range c.config.Labels {
		if name, ok := strings.CutPrefix(label, seccompLabel); ok {
			return c.seccomp.named(name)
		}
	}
	if c.config.Seccomp == nil {
		return &seccompProgram{}, nil
	}
	p, _, err := c.seccomp.of(c.config.Seccomp)
	return p, err
}

// standIn replaces the profile in a new container's configuration by one
// without rules, and returns the program to give to init. Should init not find
// it, every system call fails. Profiles with an agent stay: libcontainer has to
// see which calls are its.
func (s *seccompPrograms) standIn(config *configs.Config) (*os.File, error) {
	profile := config.Seccomp
	if profile == nil || slices.ContainsFunc(profile.Syscalls, func(c *configs.Syscall) bool { return c.Action == configs.Notify }) {
		return nil, nil
	}
	program, name, err := s.of(profile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	enosys := uint(unix.ENOSYS) // with it, libcontainer adds no stub: the program has one
	config.Seccomp = &configs.Seccomp{DefaultAction: configs.Errno, DefaultErrnoRet: &enosys, Flags: profile.Flags}
	config.Labels = append(config.Labels, seccompLabel+name)
	return program.file()
}
