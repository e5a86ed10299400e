package libct

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/resources"
)

// Update changes the resources that r names and leaves the others as they are,
// or fails and changes nothing. The kernel's order between memory and memory+swap
// is kept in both directions. Of what UpdateRequest can name it takes back what
// CRI can: not the limits of block devices and of RDMA.
func (e *Engine) Update(ctx context.Context, r runtime.UpdateRequest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := e.get(r.ID)
	if err != nil {
		return err
	}
	if r.OOMScoreAdj != nil {
		adj := e.limits.OOMScoreAdj(*r.OOMScoreAdj)
		r.OOMScoreAdj = &adj
	}
	if r.Resources == nil {
		r.Resources = &specs.LinuxResources{}
	}
	if err := c.update(r); err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}
	return nil
}

// update begins with the OOM score, whose refusal leaves nothing to take back.
func (c *container) update(r runtime.UpdateRequest) (err error) {
	var undone undo.Stack
	defer func() { err = errors.Join(err, undone.Run(context.Background())) }()
	if r.OOMScoreAdj != nil {
		before, err := c.swapOOMScoreAdj(*r.OOMScoreAdj)
		if err != nil {
			return fmt.Errorf("set oom_score_adj to %d: %w", *r.OOMScoreAdj, err)
		}
		undone.Push(func(context.Context) error { _, err := c.swapOOMScoreAdj(before); return err })
	}
	saved, err := resources.Save(c.paths, r.Resources.Unified)
	if err != nil {
		return err
	}
	undone.Push(func(context.Context) error { return saved.Restore() })
	if err := resources.LowerMemory(c.paths, r.Resources.Memory); err != nil {
		return err
	}
	undone.Push(func(context.Context) error { return c.resetUnit(saved) })
	if err := c.setConfig(r, saved); err != nil {
		return err
	}
	undone.Discard()
	return nil
}

// setConfig sets the limits and saves them, with the OOM score, for later execs.
func (c *container) setConfig(r runtime.UpdateRequest, saved resources.Saved) error {
	asked, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{
		CgroupName: c.id,
		Spec:       &specs.Spec{Linux: &specs.Linux{Resources: r.Resources}},
	}, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	ct, err := c.load()
	if err != nil {
		return err
	}
	config := ct.Config()
	now := *config.Cgroups.Resources
	resources.Merge(&now, asked.Resources, r.Resources)
	if config.Cgroups.Systemd {
		resources.SayNoSwap(&now, saved.Unified(c.paths))
	}
	if r.OOMScoreAdj != nil {
		config.OomScoreAdj = r.OOMScoreAdj
	}
	err = setResources(ct, config, now)
	if errors.Is(err, libcontainer.ErrNotRunning) {
		return c.stopped()
	}
	if errors.Is(err, cgroups.ErrV1NoUnified) {
		return fmt.Errorf("%w: %w", err, errs.Unsupported)
	}
	if err != nil {
		return resources.Blame(err, nil)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config.OomScoreAdj = config.OomScoreAdj
	return nil
}

// resetUnit tells systemd the limits that there were. libcontainer tells it those
// that it has set itself, and of the others a unit would keep what was refused
// until systemd writes the unit's limits, as it does when another changes.
func (c *container) resetUnit(saved resources.Saved) error {
	before := saved.Unified(c.paths)
	if before == nil {
		return nil
	}
	ct, err := c.load()
	if err != nil {
		return err
	}
	config := ct.Config()
	if !config.Cgroups.Systemd {
		return nil
	}
	now := *config.Cgroups.Resources
	now.Unified = before
	err = setResources(ct, config, now)
	if errors.Is(err, libcontainer.ErrNotRunning) {
		return nil
	}
	return err
}

// setResources leaves the rules for devices as they are: writing them again is not
// atomic in v1, and one that is being used would fail in between.
func setResources(ct *libcontainer.Container, config configs.Config, r cgroups.Resources) error {
	group := *config.Cgroups
	r.SkipDevices = true
	group.Resources = &r
	config.Cgroups = &group
	if err := ct.Set(config); err != nil {
		return err
	}
	r.SkipDevices = false // libcontainer keeps and saves it, and refuses to start so
	return nil
}

// swapOOMScoreAdj sets the first process's and returns what it was.
func (c *container) swapOOMScoreAdj(adj int) (before int, err error) {
	if c.pidfd == nil {
		return 0, c.stopped()
	}
	before, err = resources.SwapOOMScoreAdj(c.pid, adj)
	// The process was still ours when the write was done, or it hit nobody: a
	// pid is not given again before it is reaped.
	if sigErr := unix.PidfdSendSignal(int(c.pidfd.Fd()), 0, nil, 0); errors.Is(sigErr, unix.ESRCH) {
		return 0, c.stopped()
	}
	return before, err
}
