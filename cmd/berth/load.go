package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// chunkBytes is how much of an archive one message carries.
const chunkBytes = 1 << 20

func loadCommand(a *app) *cobra.Command {
	var input string
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Load images from an OCI or docker archive",
		Args:  cobra.NoArgs,
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			in, err := a.openInput(input)
			if err != nil {
				return err
			}
			defer in.Close()
			return a.loadArchive(ctx, c, in)
		}),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "-", "the archive; - is stdin")
	return cmd
}

// openInput opens a file, or stdin for "-" unless it is a terminal.
func (a *app) openInput(path string) (io.ReadCloser, error) {
	if path != "-" {
		return os.Open(path)
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, errors.New("stdin is a terminal: name a file, or pipe one in")
	}
	return io.NopCloser(a.in), nil
}

func (a *app) loadArchive(ctx context.Context, c *client.Client, in io.Reader) error {
	stream, err := c.Admin.Load(ctx)
	if err != nil {
		return err
	}
	buf := make([]byte, chunkBytes)
	for {
		n, readErr := io.ReadFull(in, buf)
		if n > 0 && stream.Send(&apiv1.LoadRequest{Data: buf[:n]}) != nil {
			break // the reply says why
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return readErr
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	for _, image := range resp.Images {
		for _, tag := range image.RepoTags {
			fmt.Fprintln(a.out, "Loaded", tag)
		}
		if len(image.RepoTags) == 0 {
			fmt.Fprintln(a.out, "Loaded", image.Id)
		}
	}
	return nil
}
