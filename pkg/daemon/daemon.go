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

// stopTimeout bounds how long requests may go on when the daemon stops.
const stopTimeout = 10 * time.Second

// Run serves until ctx ends, and returns nil then. Containers run on.
func Run(ctx context.Context, o Options) error {
	setVerbosity(o.Config.LogLevel)
	unlock, err := lockState(o.Config.State)
	if err != nil {
		return err
	}
	defer unlock()

	life, end := context.WithCancel(context.WithoutCancel(ctx)) // of the services: longer than the requests'
	var running sync.WaitGroup
	defer running.Wait()
	defer end()

	s, err := build(life, o, &running)
	if err != nil {
		return err
	}
	defer s.close()
	server := edge.NewServer()
	s.register(server)
	listener, err := listen(o.Config.Socket())
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Serving", "socket", o.Config.Socket(), "version", o.Version, "pods", len(s.pods.List()), "containers", len(s.containers.List()))
	return serve(ctx, o, server, listener)
}

// serve answers requests until ctx ends or the server fails.
func serve(ctx context.Context, o Options, server *grpc.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", o.Config.Socket(), err)
		case <-hangups:
			reload(ctx, &o)
		case <-ctx.Done():
			klog.FromContext(ctx).Info("Stopping; containers run on")
			stop(server)
			return nil
		}
	}
}

// stop lets requests that run finish, within a bound.
func stop(server *grpc.Server) {
	late := time.AfterFunc(stopTimeout, server.Stop)
	defer late.Stop()
	server.GracefulStop()
}

// lockState makes the state directory and keeps other daemons out of it. User
// namespaces reach what is theirs through it, so that others may pass, not look.
func lockState(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "berthd.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another berthd runs on %s: stop it, or give this one its own --state and --root: %w", dir, errs.Conflict)
		}
		return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return func() { f.Close() }, nil
}

// listen makes the socket, which only root may use, in place of one that an
// earlier daemon left: the lock tells that none serves it.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen on %s: there is something that is not a socket: %w", path, errs.Conflict)
	}
	fresh := path + ".new"
	for _, stale := range []string{fresh, path} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
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
