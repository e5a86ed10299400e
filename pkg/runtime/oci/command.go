package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// maxLog bounds what is read of a command's log.
const maxLog = 1 << 20

// command is a call of the container's OCI runtime that tells errors in a log
// file, because its stderr may be that of a container.
type command struct {
	args []string
	log  string
}

func (c *container) command(verb string, args ...string) (*command, error) {
	log, err := os.CreateTemp(c.dir, "log-")
	if err != nil {
		return nil, err
	}
	_ = log.Close() // empty
	all := []string{c.note.Command.Path, "--root", c.note.Command.Root, "--log", log.Name(), "--log-format", "json"}
	if c.systemd {
		all = append(all, "--systemd-cgroup")
	}
	return &command{append(append(all, verb), args...), log.Name()}, nil
}

// run runs a verb that makes no process of the container.
func (c *container) run(ctx context.Context, verb string, args ...string) error {
	x, err := c.command(verb, args...)
	if err != nil {
		return err
	}
	p := exec.CommandContext(ctx, x.args[0], x.args[1:]...)
	p.Env = environment()
	return x.done(ctx, p.Run())
}

// done forgets the log. Where err is not nil, it returns what the command said.
func (x *command) done(ctx context.Context, err error) error {
	defer func() { _ = os.Remove(x.log) }() // or it goes with the container
	if err == nil {
		return nil
	}
	name := filepath.Base(x.args[0])
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if said := lastError(x.log); said != "" {
		return fmt.Errorf("%s: %s", name, said)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// lastError returns the last error of a log in JSON, or its last line.
func lastError(path string) (said string) {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxLog))
	lines.Buffer(nil, maxLog)
	grave := false
	for lines.Scan() {
		var line struct{ Level, Msg string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			line.Msg = lines.Text()
		}
		is := line.Level == "error" || line.Level == "fatal"
		if line.Msg != "" && (is || !grave) {
			said, grave = line.Msg, is
		}
	}
	return said
}

// environment is ours without what is between berth-runtime and itself.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "_BERTH_") })
}
