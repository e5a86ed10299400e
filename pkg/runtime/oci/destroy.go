package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// destroyLimit bounds destroy where the caller's context does not.
const destroyLimit = 30 * time.Second

// destroy is idempotent, and works on what a killed worker left half made.
func (e *Engine) destroy(ctx context.Context, c *container) error {
	ctx, cancel := context.WithTimeout(ctx, destroyLimit)
	defer cancel()
	if c.note.Command.Path != "" {
		if err := c.remove(ctx); err != nil {
			return fmt.Errorf("destroy container %s: %w", c.id, err)
		}
	}
	if c.pidfd != nil {
		_ = c.pidfd.Close() // nothing was written to it
	}
	return os.RemoveAll(c.dir)
}

func (c *container) remove(ctx context.Context) error {
	// Commands that a killed worker has started go on making what is to go.
	held, err := lock(ctx, c.path(lockName), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := c.kill(true); err != nil {
		return err
	}
	if err := c.awaitEnd(ctx); err != nil {
		return err
	}
	if _, statErr := os.Stat(c.note.Command.Path); errors.Is(statErr, os.ErrNotExist) { // uninstalled
		err = os.RemoveAll(filepath.Join(c.note.Command.Root, c.id))
	} else {
		err = c.run(ctx, "delete", "--force", c.id)
	}
	// A command that was killed may have made cgroups that it does not know of.
	return errors.Join(err, c.driver.RemoveInit(ctx, c.note.Cgroup))
}
