package seccomp

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/berth-run/berth/pkg/errs"
)

// Asks tells whether a profile leaves system calls to an agent.
func Asks(profile *configs.Seccomp) bool {
	return profile != nil && slices.ContainsFunc(profile.Syscalls, func(c *configs.Syscall) bool { return c.Action == configs.Notify })
}

// checkAgent refuses what would leave init waiting for an agent that it has not told
// of yet, and libcontainer refuses too: it tells by write.
func checkAgent(profile *configs.Seccomp) error {
	if profile.DefaultAction == configs.Notify {
		return errors.New("SCMP_ACT_NOTIFY cannot be the default action")
	}
	for _, c := range profile.Syscalls {
		if c.Action == configs.Notify && c.Name == "write" {
			return errors.New("SCMP_ACT_NOTIFY cannot be the action of write")
		}
	}
	if Asks(profile) && profile.ListenerPath == "" {
		return errors.New("SCMP_ACT_NOTIFY needs listenerPath, the socket of an agent")
	}
	return nil
}

// Blame names the agent where err is that it could not be told of a process.
func Blame(err error, profile *configs.Seccomp) error {
	var op *net.OpError
	if !Asks(profile) || !errors.As(err, &op) || op.Net != "unix" {
		return err
	}
	return fmt.Errorf("seccomp agent at %s: %w: %w", profile.ListenerPath, op, errs.Conflict)
}
