// Package harness runs Berth and containerd for the programs that measure them.
//
// Everything happens in namespaces of its own (network, mounts, processes) and
// under one temporary directory, so that nothing is left on the machine: the
// processes end with their PID namespace, the bridges with their network
// namespace, the mounts with theirs.
package harness

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
)

// Settings say where things are.
type Settings struct {
	Bin, Cache string
	Only       string
	// Dir is the run's temporary directory.
	Dir string
}

// Flags defines the flags of the settings.
func (s *Settings) Flags(f *flag.FlagSet) {
	f.StringVar(&s.Bin, "bin", "bin", "directory of Berth's programs and of cni/")
	f.StringVar(&s.Cache, "cache", ".cache/peers", "directory of the peer's programs, which are installed if missing")
	f.StringVar(&s.Only, "only", "", "measure only berth or only containerd")
	f.StringVar(&s.Dir, "dir", "", "temporary directory of the run; set by the program itself")
}

// Run calls measure in namespaces of its own, with the images that starters load
// made in s.Dir. The program runs as three processes for that, with the same
// arguments: see isolate.go.
func Run(ctx context.Context, s Settings, measure func(context.Context) error) error {
	switch os.Getenv(stageVariable) {
	case stageInit:
		return reap(ctx)
	case stageMeasure:
		if err := enter(s.Dir); err != nil {
			return err
		}
		if err := makeImages(ctx, s.Dir); err != nil {
			return err
		}
		return measure(ctx)
	default:
		return outside(ctx, s)
	}
}

// outside installs what is missing while there is a network, starts the inner
// process and takes away what it leaves.
func outside(ctx context.Context, s Settings) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, path := range []*string{&s.Bin, &s.Cache} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if s.Only != Berth {
		if err := install(ctx, s.Cache); err != nil {
			return err
		}
	}
	if s.Dir, err = os.MkdirTemp("", "berth-peers-"); err != nil {
		return err
	}
	defer func() {
		removeCgroups()
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}()
	return isolate(ctx, s)
}

// Outside reports whether this is the first of the program's processes, which has
// the machine's network.
func Outside() bool { return os.Getenv(stageVariable) == "" }
