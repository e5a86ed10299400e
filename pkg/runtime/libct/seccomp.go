package libct

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/runc/libcontainer/configs"
)

// seccompProgram is a filter as the kernel takes it.
type seccompProgram struct {
	flags uint32
	code  []byte // struct sock_filter, one after the other; empty: no filter
	// exported is what libseccomp made of the profile, before libcontainer's
	// stub for newer system calls, in a sealed memory file: see seccomp_given.c.
	exported *os.File
}

// maxPrograms bounds the cache: nodes have few profiles.
const maxPrograms = 64

// seccompPrograms keeps the programs of profiles. To compile the default one
// takes 12 ms, more than all the rest of a container's start.
type seccompPrograms struct {
	mu       sync.Mutex
	programs map[[sha256.Size]byte]*seccompProgram
}

// of returns the program of a profile; that of nil is empty.
func (s *seccompPrograms) of(profile *configs.Seccomp) (*seccompProgram, error) {
	if profile == nil {
		return &seccompProgram{}, nil
	}
	text, err := json.Marshal(profile)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	key := sha256.Sum256(text)
	s.mu.Lock()
	defer s.mu.Unlock() // held while one is made: who else asks wants the same one
	if p := s.programs[key]; p != nil {
		return p, nil
	}
	p, err := compileSeccomp(profile)
	if err != nil {
		return nil, err
	}
	if s.programs == nil || len(s.programs) >= maxPrograms {
		s.programs = map[[sha256.Size]byte]*seccompProgram{} // files are closed once nobody has them
	}
	s.programs[key] = p
	return p, nil
}
