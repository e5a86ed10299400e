// Package seccomp compiles each seccomp profile once and has libcontainer's init
// load what was compiled.
//
// To compile the default profile takes 12 ms, more than all the rest of a
// container's start, and libcontainer's init does it each time. Here the program
// of a profile is kept, by a digest of the profile: in memory, and in a directory
// on tmpfs for the workers to come. A new container's init gets it in a memory
// file, with a stand-in for the profile that is quick to read (StandIn, Take);
// given.c puts the program in its place. Execs load it by themselves (Of).
//
// It refuses to decide what a profile allows. Programs' one lock is held while a
// program is made, since who else asks wants the same one. There are no
// goroutines.
package seccomp

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

// Program is a filter as the kernel takes it.
type Program struct {
	// Flags are those of seccomp(2).
	Flags uint32
	// Code is struct sock_filter, one after the other; empty: no filter.
	Code []byte
}

// label begins the label of a container's configuration that names its program;
// what follows is the name of a file in Programs.dir.
const label = "berth.seccomp="

// maxPrograms bounds the cache: nodes have few profiles.
const maxPrograms = 64

// Programs keeps the programs of profiles, by a digest of these. All methods may
// be called concurrently.
type Programs struct {
	dir string

	mu       sync.Mutex
	programs map[string]*Program
}

// Open uses the directory, which it makes if needed.
func Open(dir string) (*Programs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Programs{dir: dir}, statefile.Sweep(dir)
}

// of returns the program of a profile, and its name.
func (s *Programs) of(profile *configs.Seccomp) (*Program, string, error) {
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
	p, err := compile(profile)
	if err != nil {
		return nil, "", err
	}
	data := append(binary.NativeEndian.AppendUint32(nil, p.Flags), p.Code...)
	if err := statefile.WriteBytes(filepath.Join(s.dir, name), data, 0o600, false); err != nil {
		return nil, "", fmt.Errorf("keep seccomp program: %w", err)
	}
	s.keepLocked(name, p)
	return p, name, nil
}

// named returns a program that this worker or an earlier one has made.
func (s *Programs) named(name string) (*Program, error) {
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
	p := &Program{Flags: binary.NativeEndian.Uint32(data), Code: data[4:]}
	s.keepLocked(name, p)
	return p, nil
}

func (s *Programs) keepLocked(name string, p *Program) {
	if s.programs == nil || len(s.programs) >= maxPrograms {
		s.programs = map[string]*Program{}
	}
	s.programs[name] = p
}

// Of returns the filter of a container's execs, which is that of its first
// process: with a program of no code where the configuration has no profile.
func (s *Programs) Of(config *configs.Config) (*Program, error) {
	for _, l := range config.Labels {
		if name, ok := strings.CutPrefix(l, label); ok {
			return s.named(name)
		}
	}
	if config.Seccomp == nil {
		return &Program{}, nil
	}
	p, _, err := s.of(config.Seccomp)
	return p, err
}

// Given is Of for an exec by libcontainer's init: the program to give to it as
// StandIn's caller does, or nil where the configuration has a profile of its own
// or none.
func (s *Programs) Given(config *configs.Config) (*os.File, error) {
	if !slices.ContainsFunc(config.Labels, func(l string) bool { return strings.HasPrefix(l, label) }) {
		return nil, nil
	}
	p, err := s.Of(config)
	if err != nil {
		return nil, err
	}
	return p.file()
}

// StandIn replaces the profile in a new container's configuration by one
// without rules, and returns the program to give to init as its first extra
// file, which the caller closes. It is nil where there is nothing to give.
// Should init not find it, every system call fails. Profiles with an agent stay:
// libcontainer has to see which calls are its.
func (s *Programs) StandIn(config *configs.Config) (*os.File, error) {
	profile := config.Seccomp
	if profile == nil {
		return nil, nil
	}
	if err := checkAgent(profile); err != nil {
		return nil, fmt.Errorf("seccomp profile: %w: %w", err, errs.Invalid)
	}
	if Asks(profile) {
		return nil, nil
	}
	program, name, err := s.of(profile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	enosys := uint(unix.ENOSYS) // with it, libcontainer adds no stub: the program has one
	config.Seccomp = &configs.Seccomp{DefaultAction: configs.Errno, DefaultErrnoRet: &enosys, Flags: profile.Flags}
	config.Labels = append(config.Labels, label+name)
	return program.file()
}
