package container

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

// Exec runs a command in a running container and returns its output, 16 MiB of
// each stream at most. A timeout of zero means none. It takes no lock: a probe
// runs on while the container is being stopped.
func (s *Service) Exec(ctx context.Context, id string, cmd []string, timeout time.Duration) (runtime.ExecResult, error) {
	c, err := s.Get(id)
	if err != nil {
		return runtime.ExecResult{}, err
	}
	r, err := c.Command(cmd, false)
	if err != nil {
		return runtime.ExecResult{}, err
	}
	r.Timeout = timeout
	result, err := s.d.Runtime.Exec(ctx, r)
	if err != nil {
		return result, fmt.Errorf("execute in container %s: %w", r.ID, err)
	}
	return result, nil
}

// Command returns what berth-runtime is asked for to run a command in the
// container, which has to run, with a terminal or without.
func (c *Container) Command(cmd []string, tty bool) (runtime.ExecRequest, error) {
	switch {
	case len(cmd) == 0:
		return runtime.ExecRequest{}, fmt.Errorf("execute in container %s: no command: %w", c.ID, errs.Invalid)
	case c.Status.State != Running:
		return runtime.ExecRequest{}, fmt.Errorf("execute in container %s: it is %s, not running: %w", c.ID, c.Status.State, errs.Conflict)
	}
	p := spec.Exec(&specs.Spec{Process: c.process}, cmd, tty)
	return runtime.ExecRequest{ID: c.ID, Process: p, Env: spec.RawEnv(p)}, nil
}

// ReopenLog makes the container write to a new file at its log path, after the
// old one has been moved. Where it fails nothing has changed.
func (s *Service) ReopenLog(ctx context.Context, id string) error {
	c, err := s.Get(id)
	if err != nil {
		return err
	}
	if c.Status.State != Running {
		return fmt.Errorf("reopen log of container %s: it is %s, not running: %w", id, c.Status.State, errs.Conflict)
	}
	return s.d.Runtime.ReopenLog(ctx, c.ID)
}
