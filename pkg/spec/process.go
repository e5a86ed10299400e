package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec/check"
)

func (b *builder) process() error {
	args, err := b.args()
	if err != nil {
		return err
	}
	cwd, err := workingDir(b.Container.GetWorkingDir(), b.Image.WorkingDir)
	if err != nil {
		return err
	}
	env, err := b.environment()
	if err != nil {
		return err
	}
	score := OOMScoreAdj(b.Container.GetLinux().GetResources().GetOomScoreAdj(), b.Host, b.Options)
	b.spec.Process = &specs.Process{
		Terminal: b.Container.GetTty(),
		User: specs.User{
			UID:            b.User.UID,
			GID:            b.User.GID,
			AdditionalGids: slices.Clone(b.User.Additional),
		},
		Args:            args,
		Env:             env,
		Cwd:             cwd,
		NoNewPrivileges: b.security.GetNoNewPrivs(),
		Rlimits:         slices.Clone(b.Options.Rlimits),
		OOMScoreAdj:     &score,
	}
	return nil
}

// args follows Kubernetes: a command replaces both ENTRYPOINT and CMD, args
// alone replace CMD.
func (b *builder) args() ([]string, error) {
	command, args := b.Container.GetCommand(), b.Container.GetArgs()
	if len(command) == 0 {
		command = b.Image.Entrypoint
		if len(args) == 0 {
			args = b.Image.Cmd
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 || all[0] == "" {
		return nil, fmt.Errorf("no command: neither the configuration nor the image names one: %w", errs.Invalid)
	}
	if slices.ContainsFunc(all, func(s string) bool { return strings.ContainsRune(s, 0) }) {
		return nil, fmt.Errorf("command contains a zero byte: %w", errs.Invalid)
	}
	return all, nil
}

// workingDir takes the configured directory, else the image's. A path into
// /proc could name a file descriptor of the runtime (CVE-2024-21626): only
// /proc itself is let through.
func workingDir(configured, image string) (string, error) {
	dir := configured
	if dir == "" {
		dir = image
	}
	dir = path.Clean("/" + dir)
	if err := check.Path(dir); err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	if strings.HasPrefix(dir, "/proc/") {
		return "", fmt.Errorf("working directory %q lies in /proc: %w", dir, errs.Invalid)
	}
	return dir, nil
}

// Exec returns the process of one more command in a container: the user,
// environment, directory, capabilities and labels of base's own. Its OOM score is
// left open: the container's may have been updated since base.
func Exec(base *specs.Spec, cmd []string, tty bool) *specs.Process {
	p := *base.Process
	p.Args = slices.Clone(cmd)
	p.Terminal = tty
	p.ConsoleSize = nil
	p.CommandLine = ""
	p.OOMScoreAdj = nil
	p.Env = slices.Clone(base.Process.Env)
	if tty && !slices.ContainsFunc(p.Env, func(s string) bool { return strings.HasPrefix(s, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return &p
}
