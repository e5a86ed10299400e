package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/buffer"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/reference"
	client "github.com/berth-run/berth/pkg/image/registry"
)

// task is what one stage does with each layer, by the packages that berthd does it
// with. What it takes is in memory before the clock runs.
type task struct {
	Name          string
	packed, plain bool // what it takes
	do            func(content, context.Context) error
}

// The stages of which digests is the sum.
const (
	digestsPacked = "digests, packed"
	digestsPlain  = "digests, plain"
)

var tasks = []task{
	{Name: "fetch", do: content.fetch},
	{Name: "inflate", packed: true, do: content.inflate},
	{Name: digestsPacked, packed: true, do: content.hashPacked},
	{Name: digestsPlain, plain: true, do: content.hashPlain},
	{Name: "digests", packed: true, plain: true, do: content.hashBoth},
	{Name: "write", plain: true, do: content.write},
}

// content is one layer.
type content struct {
	desc   ispec.Descriptor
	diffID digest.Digest
	file   string   // to be written
	packed []byte   // absent unless the task takes it
	plain  [][]byte // likewise; pieces, as they pass through a pull
	source *client.Repository
}

// runTask runs one stage on the image in home, and prints how long it has taken.
func runTask(ctx context.Context, name, home, dir string) error {
	n := slices.IndexFunc(tasks, func(t task) bool { return t.Name == name })
	if n < 0 {
		return fmt.Errorf("no stage is called %q", name)
	}
	if !likeBerthd() {
		return errors.New("stages need a build with cgo: berthd has its decoder in C")
	}
	dir, err := os.MkdirTemp(dir, "stage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	layers, err := prepare(ctx, tasks[n], home, dir)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what preparing has left is no work of the stage
	cpu, began := ownCPU(), time.Now()
	if err := each(ctx, layers, tasks[n].do); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(stageRun{Wall: time.Since(began), CPU: ownCPU() - cpu})
}

// likeBerthd reports whether the decoder in C is in this program.
func likeBerthd() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

// each does as many layers at once as a pull.
func each(ctx context.Context, layers []content, do func(content, context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4) // max_concurrent_downloads
	for _, l := range layers {
		group.Go(func() error { return do(l, ctx) })
	}
	return group.Wait()
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// prepare puts what the task takes into memory.
func prepare(ctx context.Context, t task, home, dir string) ([]content, error) {
	image, err := load(home)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(home, image.Config.Encoded()))
	if err != nil {
		return nil, err
	}
	var config ispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, err
	}
	name, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	source, err := client.New(client.Options{}).Repository(name, client.Auth{})
	if err != nil {
		return nil, err
	}
	layers := make([]content, len(image.Layers))
	for n, d := range image.Layers {
		layers[n] = content{desc: d, diffID: config.RootFS.DiffIDs[n], file: filepath.Join(dir, d.Digest.Encoded()), source: source}
		if !t.packed && !t.plain {
			continue
		}
		if layers[n].packed, err = os.ReadFile(filepath.Join(home, d.Digest.Encoded())); err != nil {
			return nil, err
		}
	}
	if !t.plain {
		return layers, nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for n := range layers {
		group.Go(func() error { return layers[n].unpack(ctx, t.packed) })
	}
	return layers, group.Wait()
}

// memory is what the pulls of a daemon have for decoding, all together.
const memory = 32 << 20

// unpack makes the plain form.
func (c *content) unpack(ctx context.Context, keep bool) error {
	z, err := inflate.NewPool(memory).Stream(ctx, bytes.NewReader(c.packed))
	if err != nil {
		return err
	}
	defer z.Close()
	for {
		piece := make([]byte, buffer.Size)
		n, err := io.ReadFull(z, piece)
		c.plain = append(c.plain, piece[:n])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if !keep {
		c.packed = nil
	}
	return nil
}

// drain reads a stream to its end.
func drain(r io.Reader) error {
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, buffer.Size))
	return err
}

func (c content) fetch(ctx context.Context) error {
	body, err := c.source.Blob(ctx, c.desc, 0)
	if err != nil {
		return err
	}
	return errors.Join(drain(body), body.Close())
}

func (c content) inflate(ctx context.Context) error {
	z, err := inflate.NewPool(memory).Stream(ctx, bytes.NewReader(c.packed))
	if err != nil {
		return err
	}
	defer z.Close()
	for err == nil {
		_, err = z.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (c content) hashPacked(context.Context) error {
	return drain(blob.NewVerifier(bytes.NewReader(c.packed), c.desc.Digest, c.desc.Size))
}

func (c content) hashPlain(context.Context) error {
	v := c.diffID.Verifier()
	for _, p := range c.plain {
		_, _ = v.Write(p) // a hash never fails
	}
	if !v.Verified() {
		return fmt.Errorf("layer %s has another digest", c.diffID)
	}
	return nil
}

// hashBoth hashes both forms beside each other, as a pull does.
func (c content) hashBoth(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.hashPacked(ctx) })
	group.Go(func() error { return c.hashPlain(ctx) })
	return group.Wait()
}

// write writes the plain form to the disk. As in a pull, a goroutine syncs behind
// the writer.
func (c content) write(context.Context) error {
	const step = 16 << 20
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var behind errgroup.Group
	marks := make(chan struct{}, 1)
	behind.Go(func() error {
		var failed error
		for range marks {
			failed = errors.Join(failed, f.Sync())
		}
		return failed
	})
	var at, marked int64
	for _, p := range c.plain {
		n, writeErr := f.WriteAt(p, at)
		if at += int64(n); writeErr != nil {
			err = writeErr
			break
		}
		if at-marked >= step {
			marked = at
			select {
			case marks <- struct{}{}:
			default:
			}
		}
	}
	close(marks)
	return errors.Join(err, behind.Wait(), f.Sync())
}
