// Package daemon is berthd as a whole: it builds every service by hand, in
// order, recovers what an earlier daemon left, serves, and closes in reverse.
//
//	lock ─▶ berth-runtime ─▶ image, network ─▶ container ─▶ pod ─▶ recover
//	     ─▶ cri, manifest, admin ─▶ socket ─▶ … ─▶ close
//
// What the configuration means to each service is decided here and nowhere
// else. Long-lived goroutines: the services' Run, the guard of berth-runtime,
// and the gRPC server; Run waits for all of them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/errs"
)

// Options say what to run.
type Options struct {
	// Config is valid. Load reads it again for SIGHUP; nil: SIGHUP does nothing.
	Config config.Config
	Load   func() (config.Config, error)
	// Standalone brings a network and starts berth-runtime where none serves.
	Standalone bool
	Version    string
}

// stopTimeout bounds how long requests may go on when the daemon stops, and
// closeTimeout how long the services may then take.
const (
	stopTimeout  = 10 * time.Second
	closeTimeout = 20 * time.Second
)

// Run serves until ctx ends, and returns nil then. Containers run on.
func Run(ctx context.Context, o Options) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP) // from the first moment: it would end the process
	defer signal.Stop(hangups)
	setVerbosity(o.Config.LogLevel)
	unlock, err := lock(o.Config.State, o.Config.Root)
	if err != nil {
		return err
	}
	defer unlock()

	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of the services: longer than the requests'
	defer end()
	begun := context.AfterFunc(ctx, end) // until requests are served there is nothing to finish
	var running sync.WaitGroup
	s, err := build(life, o, &running)
	if err == nil {
		err = s.serve(ctx, o, begun, hangups)
	}
	within(closeTimeout, func() {
		s.close()
		end()
		running.Wait()
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve answers requests until ctx ends or the server fails. It calls begun
// before the first.
func (s *services) serve(ctx context.Context, o Options, begun func() bool, hangups <-chan os.Signal) error {
	server := edge.NewServer(s.telemetry)
	stopping := make(chan struct{})
	s.register(server, stopping)
	listener, err := listen(o.Config.Socket())
	if err != nil {
		return err
	}
	begun()
	log := klog.FromContext(ctx)
	watched, err := s.observe(ctx)
	if err != nil {
		return err
	}
	defer watched()
	log.Info("Serving", "socket", o.Config.Socket(), "version", o.Version, "pods", len(s.pods.List()), "containers", len(s.containers.List()))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if err := ready(); err != nil {
		log.Error(err, "Serving all the same")
	}
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", o.Config.Socket(), err)
		case <-hangups:
			reload(ctx, &o, s.apply)
		case <-ctx.Done():
			log.Info("Stopping; containers run on")
			close(stopping)
			stop(server)
			return <-failed // nil: we stopped it
		}
	}
}

// within waits for f, but no longer than limit: what hangs then ends with the
// process.
func within(limit time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		klog.Background().Error(errs.Timeout, "Not all has ended: leaving it behind", "limit", limit)
	}
}

// stop lets requests that run finish, within a bound.
func stop(server *grpc.Server) {
	late := time.AfterFunc(stopTimeout, server.Stop)
	defer late.Stop()
	server.GracefulStop()
}

// lock makes the daemon's directories and keeps other daemons out of them. What
// is persistent is root's alone; user namespaces reach their root file systems
// through the state directory, so that others may pass it, not look.
func lock(state, root string) (unlock func(), err error) {
	s, err := lockDirectory(state, 0o711)
	if err != nil {
		return nil, err
	}
	r, err := lockDirectory(root, 0o700)
	if err != nil {
		s.Close()
		return nil, err
	}
	return func() { r.Close(); s.Close() }, nil
}

// lockDirectory makes a directory or opens it as far as mode says, and returns
// the locked file. One that is more open stays so: it may be others' too.
func lockDirectory(dir string, mode os.FileMode) (*os.File, error) {
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, info.Mode()|mode); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "berthd.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another berthd runs on %s: stop it, or give this one its own --state and --root: %w", dir, errs.Conflict)
	}
	return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
}

// listen makes the socket, which only root may use, in place of one that an
// earlier daemon left.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen on %s: there is something that is not a socket: %w", path, errs.Conflict)
	}
	if c, err := net.Dial("unix", path); err == nil { // our directories are locked, but the socket may lie elsewhere
		c.Close()
		return nil, fmt.Errorf("listen on %s: another process does: %w", path, errs.Conflict)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path) // nobody could connect before it was ours alone
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
