package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
)

// Teardown removes the built-in network from the host: its bridge if Attach made
// it and nothing is a port of it, what lets the host forward for it, and the plugins' tables where they hold no pod's rule. It refuses while a pod is
// attached. Without a built-in network it does nothing. The next Attach sets
// everything up again.
func (s *Service) Teardown(ctx context.Context) error {
	if s.builtin.Load() == nil {
		return nil
	}
	if n := len(s.records.All()); n > 0 {
		return fmt.Errorf("tear down network: %d pods are attached: %w", n, errs.Conflict)
	}
	if err := s.exec.Close(ctx); err != nil {
		return fmt.Errorf("tear down network: %w", err)
	}
	return errors.Join(s.bridge.Remove(ctx), s.exec.RemoveTables())
}
