package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

const (
	// runtimeStart is how long berth-runtime takes to answer after its start where
	// all is well.
	runtimeStart = 10 * time.Second
	// startPatience is how long it may take on a machine that does something else,
	// such as booting.
	startPatience = 2 * time.Minute
)

// guard is a standalone daemon's care for berth-runtime: it starts one where
// none serves. berth-runtime is never a part of the daemon: it has a session of
// its own and stays when the daemon goes.
type guard struct {
	state  string
	driver string
	client *runtime.Client
	// patience bounds the wait for an answer, and usual is when it is said that
	// there is none yet.
	patience, usual time.Duration
}

// ensure returns once a berth-runtime answers.
func (g *guard) ensure(ctx context.Context) error {
	if _, err := g.client.Version(ctx); !errors.Is(err, errs.Unavailable) {
		return err
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	began, waiting := time.Now(), klog.FromContext(ctx)
	say := time.AfterFunc(g.usual, func() {
		waiting.Info("Waiting for berth-runtime, which does not answer yet", "since", began, "until", began.Add(g.patience), "log", g.log())
	})
	defer say.Stop()
	ctx, cancel := context.WithTimeout(ctx, g.patience)
	defer cancel()
	err := g.await(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("berth-runtime has not answered for %s, see %s: %w", g.patience, g.log(), err)
	}
	return err
}

// await returns once berth-runtime answers or ctx has ended.
func (g *guard) await(ctx context.Context) error {
	for {
		_, err := g.client.Version(ctx)
		if !errors.Is(err, errs.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (g *guard) log() string { return filepath.Join(g.state, "berth-runtime.log") }

// start runs berth-runtime in a session of its own.
func (g *guard) start(ctx context.Context) error {
	program, err := sibling("berth-runtime")
	if err != nil {
		return err
	}
	// A file, not our stderr: a pipe whose reader goes would take it along.
	log, err := os.OpenFile(g.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, "--state", g.state, "--cgroup-driver", g.driver)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	klog.FromContext(ctx).Info("Started berth-runtime", "pid", cmd.Process.Pid, "log", g.log())
	go func() { _ = cmd.Wait() }() // reaps it, should it end before the daemon; ends with either
	return nil
}

// run starts berth-runtime again whenever it is gone, until ctx ends.
func (g *guard) run(ctx context.Context) {
	const first, last = 20 * time.Millisecond, 2 * time.Second
	wait := first
	for ctx.Err() == nil {
		began := time.Now()
		_ = g.client.Events(ctx, func(runtime.Event) {}) // lasts as long as the server; why it ended does not matter
		if err := g.ensure(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot start berth-runtime again", "retry", wait)
		}
		if time.Since(began) > last {
			wait = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, last)
		}
	}
}

// sibling finds a program of ours beside this one, else in PATH.
func sibling(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside berthd nor in PATH: %w", name, errs.NotFound)
	}
	return path, nil
}
