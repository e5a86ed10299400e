package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// After is when a hook is run that is run here.
type After string

// The hooks that are run here.
const (
	Poststart After = "poststart"
	Poststop  After = "poststop"
)

// outputWait bounds the wait for the output of what a hook leaves running.
const outputWait = time.Second

// Run runs the hooks of one kind in their order, as the bundle has them. pid is
// that of the first process, 0 after its end. It ends with the first that fails, but
// for Poststop, after which none is left out.
func (b *Bundle) Run(ctx context.Context, when After, pid int) error {
	if b == nil {
		return nil
	}
	text, err := os.ReadFile(b.config())
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", b.config(), err)
	}
	if spec.Hooks == nil {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: b.id, Status: specs.StateRunning, Pid: pid, Bundle: b.path, Annotations: spec.Annotations}
	list := spec.Hooks.Poststart
	if when == Poststop {
		state.Status, list = specs.StateStopped, spec.Hooks.Poststop
	}
	told, err := json.Marshal(state)
	if err != nil {
		return err
	}
	var failed error
	for i := range list {
		if err := run(ctx, &list[i], told); err != nil {
			err = fmt.Errorf("%s hook %s of container %s: %w", when, list[i].Path, b.id, err)
			if when != Poststop {
				return err
			}
			failed = err
		}
	}
	return failed
}

func run(ctx context.Context, h *specs.Hook, state []byte) error {
	limit := Limit
	if h.Timeout != nil {
		limit = time.Duration(*h.Timeout) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output bytes.Buffer
	c := exec.CommandContext(ctx, h.Path)
	c.Args, c.Env = h.Args, h.Env
	if len(c.Args) == 0 {
		c.Args = []string{h.Path}
	}
	if len(c.Env) == 0 {
		c.Env = environment()
	}
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = bytes.NewReader(state), &output, &output, outputWait
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end with all that it has started
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGKILL) }
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it did not end within %s: %w", limit, ctx.Err())
	case err != nil:
		return fmt.Errorf("%w: %.1000s", err, output.Bytes())
	}
	return nil
}
