package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/program"
)

// specVersion is told to commands, some of which refuse what is newer than they
// are, down to the digit. Each reads those fields that it knows.
const specVersion = "1.0.2"

// ofPods are annotations that a command does not get: gVisor joins the pod's sandbox
// by them, which no command has made.
var ofPods = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"}

// CreateBy lets the command make the container, whose process waits for Start.
// errs.Exists where the id is taken; errs.NoProgram and errs.NoExecutable where the
// program is why it does not. A failed call leaves nothing.
func (e *Engine) CreateBy(ctx context.Context, by runtime.Command, id string, spec *specs.Spec, io runtime.ProcessIO) (runtime.Process, error) {
	if err := ctx.Err(); err != nil {
		return runtime.Process{}, err
	}
	c, err := e.prepare(by, id, spec, io)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	p, err := c.begin(ctx, io, "create", "init", c.made, "--bundle", c.dir)
	if err != nil {
		if spec.Root != nil {
			err = program.Blame(err, spec.Root.Path, spec.Mounts, spec.Process)
		}
		return runtime.Process{}, errors.Join(fmt.Errorf("container %s: %w", id, err), e.destroy(context.WithoutCancel(ctx), c))
	}
	e.mu.Lock()
	e.containers[id] = c
	e.mu.Unlock()
	return p, nil
}

// prepare makes the bundle and the note.
func (e *Engine) prepare(by runtime.Command, id string, spec *specs.Spec, io runtime.ProcessIO) (*container, error) {
	if err := statefile.CheckName("id", id); err != nil {
		return nil, err
	}
	if spec == nil || spec.Linux == nil || !filepath.IsAbs(by.Path) || !filepath.IsAbs(by.Root) {
		return nil, fmt.Errorf("spec without linux, or a relative path in %+v: %w", by, errs.Invalid)
	}
	process, err := e.process(spec.Process, io)
	if err != nil {
		return nil, err
	}
	s := *spec
	s.Version, s.Process, s.Annotations = specVersion, process, maps.Clone(spec.Annotations)
	for _, key := range ofPods {
		delete(s.Annotations, key)
	}
	bundle, err := json.Marshal(&s)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(by.Root, 0o711); err != nil {
		return nil, err
	}
	c := e.newContainer(id)
	if err := os.Mkdir(c.dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil, errs.Exists
	} else if err != nil {
		return nil, err
	}
	c.note.Command, c.note.Cgroup = by, s.Linux.CgroupsPath
	if c.paths, err = e.driver.Paths(c.note.Cgroup); err == nil {
		err = os.WriteFile(c.path("config.json"), bundle, 0o600)
	}
	if err == nil {
		err = c.write()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	return c, nil
}

// process checks what a command is asked to run, and lowers it to what may be.
func (e *Engine) process(p *specs.Process, io runtime.ProcessIO) (*specs.Process, error) {
	switch {
	case p == nil || len(p.Args) == 0 || p.Args[0] == "":
		return nil, fmt.Errorf("process without a program: %w", errs.Invalid)
	case p.Terminal != (io.Console != nil):
		return nil, fmt.Errorf("terminal %t, console socket %t: %w", p.Terminal, io.Console != nil, errs.Invalid)
	case slices.ContainsFunc(p.Env, func(kv string) bool { return !utf8.ValidString(kv) }):
		return nil, fmt.Errorf("an environment that is not UTF-8 cannot be told to a command: %w", errs.Unsupported)
	}
	lowered, err := e.limits.Process(p)
	if err == nil && io.Width > 0 && io.Height > 0 {
		lowered.ConsoleSize = &specs.Box{Width: uint(io.Width), Height: uint(io.Height)}
	}
	return lowered, err
}
