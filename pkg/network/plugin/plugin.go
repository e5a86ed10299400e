// Package plugin runs the binaries of CNI plugins. A plugin is trusted to do its
// work, not to end, nor to write little. The package keeps no state.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	// maxOutput bounds what a plugin may write to each of stdout and stderr.
	maxOutput = 1 << 20
	// lingering is how long a plugin's output may stay open, in the hands of a
	// child of it, after the plugin has ended or was killed.
	lingering = 2 * time.Second
	// busyTries is how often a plugin that is just being installed is tried.
	busyTries = 5
)

// Exec runs plugin binaries. It differs from libcni's own in its bounds on
// output and time, and in that a timeout kills all that the plugin has started.
type Exec struct {
	version.PluginDecoder
}

var _ invoke.Exec = (*Exec)(nil)

// FindInPath returns the path of a plugin's binary.
func (*Exec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs one plugin to its end and returns what it wrote to stdout, or
// the error that it reported there.
func (*Exec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	for try := 1; ; try++ {
		stdout, err := runPlugin(ctx, path, stdin, environ)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			return stdout, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func runPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lingering
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("plugin %s: %w", path, ctx.Err())
	case err == nil && stdout.over:
		return nil, fmt.Errorf("plugin %s wrote more than %d bytes", path, maxOutput)
	case err == nil:
		return stdout.kept, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, fmt.Errorf("plugin %s: %w", path, err)
	}
	return nil, reported(path, exit, stdout.kept, stderr.kept)
}

// reported turns what a failed plugin wrote into an error.
func reported(path string, exit error, stdout, stderr []byte) error {
	var e types.Error
	if len(stdout) > 0 && json.Unmarshal(stdout, &e) == nil && e.Msg != "" {
		return &e
	}
	const most = 1024
	words := bytes.TrimSpace(append(bytes.TrimSpace(stdout), stderr...))
	if len(words) > most {
		words = words[:most]
	}
	return fmt.Errorf("plugin %s: %w: %q", path, exit, words)
}

// limited keeps the first maxOutput bytes that are written to it and takes the
// rest without keeping it, so that the writer does not block.
type limited struct {
	kept []byte
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if room := maxOutput - len(l.kept); n > room {
		l.over = true
		p = p[:room]
	}
	l.kept = append(l.kept, p...)
	return n, nil
}
