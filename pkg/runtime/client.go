package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/rpc"
)

// Client is a Runtime that lives in another process. It keeps no connection,
// so it survives restarts of that process: a call made meanwhile waits in the
// socket's backlog. One that was running then is repeated, where doing it twice
// is the same as doing it once or can be made so: pods, Create, Restore, Start,
// Kill, Delete, Update, Resize, ReopenLog. Of the others those that change something,
// and execs, are repeated where no server has heard them. After ten seconds without one,
// and for all else, it is errs.Unavailable.
type Client struct {
	path string
}

var _ Runtime = (*Client)(nil)

// Dial returns a client of the berth-runtime that listens at path. It connects
// with the first call.
func Dial(path string) *Client { return &Client{path: path} }

// do makes a call, as a stage of what ctx is for.
func (c *Client) do(ctx context.Context, verb string, request, reply any, files ...*os.File) error {
	return stage.Run(ctx, "runtime "+verb, func(ctx context.Context) error {
		return rpc.Do(ctx, c.path, verb, request, reply, files...)
	})
}

func (c *Client) id(ctx context.Context, verb, id string) error {
	return c.do(ctx, verb, IDRequest{ID: id}, nil)
}

// CreatePod implements Pods.
func (c *Client) CreatePod(ctx context.Context, r PodRequest) error {
	return retry(ctx, func() error { return c.do(ctx, VerbCreatePod, r, nil) })
}

// DeletePod implements Pods.
func (c *Client) DeletePod(ctx context.Context, id string) error {
	return retry(ctx, func() error { return c.id(ctx, VerbDeletePod, id) })
}

// Create implements Containers.
func (c *Client) Create(ctx context.Context, r CreateRequest) (Container, error) {
	var k Container
	verb := VerbCreate
	if r.Command != nil {
		verb = VerbCreateBy
	}
	create := func() error { return c.do(ctx, verb, r, &k) }
	err := retryCreate(ctx, create, func() error { return c.id(ctx, VerbDelete, r.ID) })
	return k, err
}

// Start implements Containers.
func (c *Client) Start(ctx context.Context, id string) (Container, error) {
	var k Container
	start := func() error { return c.do(ctx, VerbStart, IDRequest{ID: id}, &k) }
	err := start()
	if !errors.Is(err, errs.Unavailable) {
		return k, err
	}
	err = retry(ctx, func() (err error) { // it may have started before the answer was lost
		if k, err = c.find(ctx, id); err == nil && k.State == Created {
			err = start()
		}
		return err
	})
	return k, err
}

// Kill implements Containers.
func (c *Client) Kill(ctx context.Context, r KillRequest) error {
	return retry(ctx, func() error { return c.do(ctx, VerbKill, r, nil) })
}

// Delete implements Containers.
func (c *Client) Delete(ctx context.Context, id string) error {
	return retry(ctx, func() error { return c.id(ctx, VerbDelete, id) })
}

// Update implements Containers.
func (c *Client) Update(ctx context.Context, r UpdateRequest) error {
	return retry(ctx, func() error { return c.do(ctx, VerbUpdate, r, nil) })
}

// Exec implements Processes.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (ExecResult, error) {
	var result ExecResult
	var all pieces
	err := heard(ctx, func() error { // no stage: it lasts as long as the process
		return rpc.Stream(ctx, c.path, VerbExec, CaptureMessage{ExecRequest: r, Pieces: true}, &result, all.take)
	})
	if err != nil {
		return ExecResult{}, err
	}
	result.Stdout, result.Stderr = all.with(1, result.Stdout), all.with(2, result.Stderr)
	return result, nil
}

// ExecStream implements Processes.
func (c *Client) ExecStream(ctx context.Context, r ExecRequest, io ExecIO, started func()) (int32, error) {
	m := ExecMessage{
		ExecRequest: r, Stdin: io.Stdin != nil, Stdout: io.Stdout != nil, Stderr: io.Stderr != nil, Console: io.Console != nil,
		Width: io.Width, Height: io.Height,
	}
	var result ExecResult
	files := present(io.Stdin, io.Stdout, io.Stderr, io.Console)
	err := heard(ctx, func() error {
		return rpc.Stream(ctx, c.path, VerbExecIO, m, &result, func([]byte) error { started(); return nil }, files...)
	})
	return result.ExitCode, err
}

// present returns those files that are there.
func present(files ...*os.File) []*os.File {
	return slices.DeleteFunc(files, func(f *os.File) bool { return f == nil })
}

// Pause implements Processes.
func (c *Client) Pause(ctx context.Context, id string) error {
	return heard(ctx, func() error { return c.id(ctx, VerbPause, id) })
}

// Resume implements Processes.
func (c *Client) Resume(ctx context.Context, id string) error {
	return heard(ctx, func() error { return c.id(ctx, VerbResume, id) })
}

// CanCheckpoint implements Checkpoints.
func (c *Client) CanCheckpoint(ctx context.Context) error {
	return c.do(ctx, VerbCanCheckpoint, nil, nil)
}

// Checkpoint implements Checkpoints.
func (c *Client) Checkpoint(ctx context.Context, r CheckpointRequest) error {
	return heard(ctx, func() error { return c.do(ctx, VerbCheckpoint, r, nil) })
}

// Restore implements Checkpoints.
func (c *Client) Restore(ctx context.Context, r RestoreRequest) (Container, error) {
	var k Container
	restore := func() error { return c.do(ctx, VerbRestore, r, &k) }
	err := retryCreate(ctx, restore, func() error { return c.id(ctx, VerbDelete, r.ID) })
	return k, err
}

// Attach implements Streams.
func (c *Client) Attach(ctx context.Context, r AttachRequest, io AttachIO) error {
	m := AttachMessage{AttachRequest: r, Stdin: io.Stdin != nil, Stdout: io.Stdout != nil, Stderr: io.Stderr != nil}
	return rpc.Do(ctx, c.path, VerbAttach, m, nil, present(io.Stdin, io.Stdout, io.Stderr)...)
}

// Resize implements Streams.
func (c *Client) Resize(ctx context.Context, id string, width, height uint16) error {
	r := ResizeRequest{ID: id, Width: width, Height: height}
	return retry(ctx, func() error { return c.do(ctx, VerbResize, r, nil) })
}

// ReopenLog implements Streams.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	return retry(ctx, func() error { return c.id(ctx, VerbReopenLog, id) })
}

// List implements Observer.
func (c *Client) List(ctx context.Context) ([]Container, error) {
	var all []Container
	err := c.do(ctx, VerbList, nil, &all)
	return all, err
}

// Events implements Observer.
func (c *Client) Events(ctx context.Context, f func(Event)) error {
	return rpc.Stream(ctx, c.path, VerbEvents, nil, nil, func(data []byte) error {
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		f(e)
		return nil
	})
}

// Version implements Observer.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	err := c.do(ctx, VerbVersion, nil, &v)
	return v, err
}
