package libct

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/criu"
)

// Restore implements runtime.EngineCheckpoints.
func (e *Engine) Restore(ctx context.Context, id string, spec *specs.Spec, io runtime.ProcessIO, dir string) (runtime.Process, error) {
	if err := e.CanCheckpoint(ctx); err != nil {
		return runtime.Process{}, err
	}
	if spec == nil || spec.Process == nil || spec.Linux == nil {
		return runtime.Process{}, fmt.Errorf("container %s: spec without process or linux: %w", id, errs.Invalid)
	}
	process, err := e.limits.Process(spec.Process)
	if err != nil {
		return runtime.Process{}, err
	}
	config, err := e.restorable(id, spec, process, dir)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("restore container %s: %w", id, err)
	}
	ct, made, err := e.enter(ctx, id, config)
	if err != nil {
		return runtime.Process{}, err
	}
	defer made()
	p, err := initProcess(process, io)
	if err == nil {
		opts := &libcontainer.CriuOpts{
			ImagesDirectory: filepath.Join(dir, criu.ImagesDir), WorkDirectory: dir, TcpEstablished: true, FileLocks: true, StatusFd: -1,
		}
		if process.ApparmorProfile != "" {
			opts.LsmProfile = "apparmor:" + process.ApparmorProfile
		}
		stop := killWith(ctx, config.Cgroups)
		err = ct.Restore(p, opts)
		stop()
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
	if err != nil {
		made()
		_ = ct.Destroy() // best effort: the error is what went wrong first
		return runtime.Process{}, errors.Join(
			fmt.Errorf("restore container %s: %w", id, criu.Explain(err, filepath.Join(dir, criu.RestoreLog))),
			criu.Tidy(dir), e.removeHalf(context.WithoutCancel(ctx), id))
	}
	restored, err := e.created(ct, id, nil)
	if err == nil && process.OOMScoreAdj != nil {
		if err := e.Update(ctx, runtime.UpdateRequest{ID: id, OOMScoreAdj: process.OOMScoreAdj}); err != nil {
			return restored, err
		}
	}
	return restored, err
}

// killPoll is how often killWith kills.
const killPoll = 100 * time.Millisecond

// killWith kills what is in the cgroup, once ctx has ended and until stop is called:
// CRIU, which joins it first of all, hangs where its images are not what they
// should be, and libcontainer waits for it.
func killWith(ctx context.Context, where *cgroups.Cgroup) (stop func()) {
	over, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() { // until stop, which waits for it
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-over.Done():
			return
		}
		for over.Err() == nil {
			if m, err := manager.New(where); err == nil {
				if dir := cgroup.Paths(m.GetPaths()).Tracking(); dir != "" {
					_ = cgroup.Kill(dir) // it is tried again
				}
			}
			select {
			case <-over.Done():
			case <-time.After(killPoll):
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// restorable is the configuration of a container to restore from the dump in dir,
// and writes beside the dump what CRIU needs.
func (e *Engine) restorable(id string, spec *specs.Spec, process *specs.Process, dir string) (*configs.Config, error) {
	config, err := e.whole(id, spec, process)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	if err := dumpable(config); err != nil {
		return nil, err
	}
	if err := criu.Inherit(filepath.Join(dir, criu.ImagesDir)); err != nil {
		return nil, err
	}
	if config.Labels, err = criu.Configure(config.Labels, filepath.Join(dir, "criu.conf"), nil); err != nil {
		return nil, err
	}
	program, err := e.seccomp.StandIn(config)
	if err != nil {
		return nil, err
	}
	program.Close() // CRIU loads the filters that were in force
	return config, nil
}
