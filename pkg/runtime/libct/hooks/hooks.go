// Package hooks gives OCI hooks, and seccomp agents, what they expect of a runtime.
// They are told of a bundle: a directory with the container's specification, which
// they read. It is made for containers that have such, and for no others.
//
// libcontainer runs the hooks of a container's creation. Those after its start
// and after its end, which it would run before the start, or instead of
// finishing the removal where one fails, are run here.
//
// On disk, in a directory on tmpfs: ID/config.json for each container with a bundle.
// Those that run in a user namespace may read their container's, and no others.
package hooks

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
)

// Limit bounds hooks that have no timeout of their own. The first that meets a GPU
// may wait for half a minute until the driver is ready.
const Limit = 2 * time.Minute

// Store is where bundles are. Its methods may be called concurrently.
type Store struct{ dir string }

// Open makes the directory, which those in user namespaces may pass, not look at.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	return &Store{dir}, nil
}

// Bundle is that of one container. A nil one, of a container that has none, does
// nothing.
type Bundle struct {
	id, path string
}

func (s *Store) bundle(id string) *Bundle { return &Bundle{id: id, path: filepath.Join(s.dir, id)} }

// Make makes the bundle of a container and tells libcontainer of it, by c, which is
// what spec has become there. It is nil where nobody is told of it. The error is
// errs.Exists where there is one.
func (s *Store) Make(id string, spec *specs.Spec, c *configs.Config) (*Bundle, error) {
	if !hasHooks(spec.Hooks) && (c.Seccomp == nil || c.Seccomp.ListenerPath == "") {
		return nil, nil
	}
	b := s.bundle(id)
	if !filepath.IsLocal(id) || filepath.Base(id) != id {
		return nil, fmt.Errorf("container %q: %w", id, errs.Invalid)
	}
	err := os.Mkdir(b.path, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("bundle of container %s: %w", id, errs.Exists)
	}
	if err == nil {
		err = b.write(spec, c)
	}
	if err != nil {
		_ = b.Remove() // the error is what went wrong first
		return nil, fmt.Errorf("bundle of container %s: %w", id, err)
	}
	b.into(c)
	return b, nil
}

// hasHooks tells whether there are any at all.
func hasHooks(h *specs.Hooks) bool {
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0 //nolint:staticcheck // vendors still write prestart
}

func (b *Bundle) write(spec *specs.Spec, c *configs.Config) error {
	text, err := json.Marshal(spec) // variables that are no text are replaced in it: hooks expect JSON
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.config(), text, 0o600); err != nil {
		return err
	}
	if !c.Namespaces.Contains(configs.NEWUSER) {
		return nil
	}
	gid, err := c.HostRootGID()
	if err != nil {
		return err
	}
	for path, mode := range map[string]os.FileMode{b.config(): 0o640, b.path: 0o710} {
		if err := os.Chown(path, 0, gid); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bundle) config() string { return filepath.Join(b.path, "config.json") }

const label = "bundle="

// Of returns the bundle of a container that has these labels, nil where it has none.
func (s *Store) Of(id string, labels []string) *Bundle {
	if b := s.bundle(id); slices.Contains(labels, label+b.path) {
		return b
	}
	return nil
}

// into tells libcontainer of the bundle, and leaves it the hooks that it runs well,
// with a bound for each. One that names no environment gets PATH, and neither our
// variables nor, as it is root outside of it, the container's (CVE-2025-23266); those
// that run in the container have the container's.
func (b *Bundle) into(c *configs.Config) {
	c.Labels = slices.DeleteFunc(c.Labels, func(l string) bool { return strings.HasPrefix(l, label) })
	c.Labels = append(c.Labels, label+b.path)
	delete(c.Hooks, configs.Poststart)
	delete(c.Hooks, configs.Poststop)
	for name, list := range c.Hooks {
		for _, h := range list {
			command, ok := h.(configs.CommandHook)
			if !ok {
				continue // ours
			}
			if command.Timeout == nil {
				limit := Limit
				command.Timeout = &limit
			}
			if len(command.Env) == 0 && name != configs.StartContainer {
				command.Env = environment()
			}
		}
	}
}

func environment() []string {
	return []string{"PATH=" + cmp.Or(os.Getenv("PATH"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}
}

// Remove removes the bundle. It is idempotent.
func (b *Bundle) Remove() error {
	if b == nil {
		return nil
	}
	return os.RemoveAll(b.path)
}

// RemoveOn removes the bundle where err is an error. It is there to be deferred.
func (b *Bundle) RemoveOn(err *error) {
	if *err != nil {
		_ = b.Remove() // the error is what went wrong first
	}
}

// Remove removes what a container that was half made may have left.
func (s *Store) Remove(id string) error { return s.bundle(id).Remove() }
