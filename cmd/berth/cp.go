package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
	"github.com/berth-run/berth/pkg/client/sessions"
	"github.com/berth-run/berth/pkg/client/transfer"
)

func cpCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cp CONTAINER:PATH PATH | PATH CONTAINER:PATH",
		Short: "Copy files between a running container and here",
		Long: "cp copies a file or a tree into a directory that exists, or else to that name. It runs\n" +
			"tar in the container, which has to have it. Owners are not kept.",
		Args: cobra.ExactArgs(2),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			from, inside, isFrom := containerPath(args[0])
			to, target, isTo := containerPath(args[1])
			switch {
			case isFrom == isTo:
				return errors.New("cp copies between a container and here: write one of the two as CONTAINER:PATH")
			case isFrom:
				return copyOut(ctx, c, from, inside, args[1])
			}
			return copyIn(ctx, c, args[0], to, target)
		}),
	}
}

// containerPath reads CONTAINER:PATH. What has a slash before the colon is a file
// of this machine.
func containerPath(s string) (container, p string, ok bool) {
	container, p, ok = strings.Cut(s, ":")
	return container, p, ok && container != "" && p != "" && !strings.HasPrefix(s, ".") && !strings.HasPrefix(s, "/")
}

// copyIn packs here what tar unpacks there.
func copyIn(ctx context.Context, c *client.Client, from, container, to string) error {
	if _, err := os.Lstat(from); err != nil {
		return err
	}
	ctr, err := c.FindContainer(ctx, container)
	if err != nil {
		return err
	}
	dir, name := path.Dir(path.Clean(to)), path.Base(path.Clean(to))
	isDir, err := sessions.Exec(ctx, c.Admin, &apiv1.ExecStart{ContainerId: ctr.Id, Command: []string{"test", "-d", operand(to)}}, sessions.IO{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		return err
	}
	if isDir == 0 {
		dir, name = path.Clean(to), filepath.Base(absolute(from))
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := transfer.Pack(w, from, name)
		w.CloseWithError(err)
		packed <- err
	}()
	err = tarInside(ctx, c, ctr.Id, sessions.IO{Stdin: r, Stdout: io.Discard}, "-xf", "-", "-C", operand(dir))
	r.Close()
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) { // tar need not read the last zeros
		return packErr
	}
	return err
}

// copyOut unpacks here what tar packs there.
func copyOut(ctx context.Context, c *client.Client, container, from, to string) error {
	ctr, err := c.FindContainer(ctx, container)
	if err != nil {
		return err
	}
	from = path.Clean(from)
	name := path.Base(from)
	if name == "/" || name == "." || name == ".." {
		return fmt.Errorf("path %q has no name of its own: copy what is in it", from)
	}
	dir, rename := filepath.Dir(absolute(to)), filepath.Base(absolute(to))
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		dir, rename = to, name
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := transfer.Unpack(r, dir, name, rename)
		r.CloseWithError(err)
		unpacked <- err
	}()
	err = tarInside(ctx, c, ctr.Id, sessions.IO{Stdout: w}, "-cf", "-", "-C", operand(path.Dir(from)), operand(name))
	w.CloseWithError(err)
	if unpackErr := <-unpacked; unpackErr != nil {
		return unpackErr // with what became of tar, if that was first
	}
	return err
}

// tarInside runs tar in the container.
func tarInside(ctx context.Context, c *client.Client, id string, streams sessions.IO, args ...string) error {
	var said bytes.Buffer
	streams.Stderr = &said
	exit, err := sessions.Exec(ctx, c.Admin, &apiv1.ExecStart{ContainerId: id, Command: append([]string{"tar"}, args...)}, streams)
	switch {
	case err != nil && notRun(err) == 127:
		return errors.New("the container has no tar, which cp needs")
	case err != nil:
		return err
	case exit != 0:
		return fmt.Errorf("tar in the container: exit code %d: %s", exit, strings.TrimSpace(said.String()))
	}
	return nil
}

// operand keeps a path from being taken for an option.
func operand(p string) string {
	if strings.HasPrefix(p, "-") {
		return "./" + p
	}
	return p
}

// absolute gives "." and ".." their names.
func absolute(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}
