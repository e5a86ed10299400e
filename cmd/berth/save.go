package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

func saveCommand(a *app) *cobra.Command {
	var output, archiveFormat, compression string
	cmd := &cobra.Command{
		Use:               "save IMAGE...",
		Short:             "Save images to an archive",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if archiveFormat != "oci" && archiveFormat != "docker" {
				return fmt.Errorf("format %q: choose oci or docker", archiveFormat)
			}
			r := &apiv1.SaveRequest{Images: args, Format: archiveFormat, Compression: compression}
			if output != "-" {
				return saveFile(ctx, c, r, output)
			}
			if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return errors.New("stdout is a terminal: name a file with -o, or redirect it")
			}
			return saveTo(ctx, c, r, a.out)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "-", "the archive; - is stdout")
	cmd.Flags().StringVar(&archiveFormat, "format", "oci", "oci or docker")
	cmd.Flags().StringVar(&compression, "compression", "", "none, gzip or zstd for layers of an oci archive that are no longer kept compressed (default none)")
	return cmd
}

// saveFile writes the archive beside its place and moves it there once whole,
// for its owner's eyes as with Docker. What is no plain file, as /dev/stdout or
// a FIFO, is written to where it is.
func saveFile(ctx context.Context, c *client.Client, r *apiv1.SaveRequest, path string) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(saveTo(ctx, c, r, f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	err = errors.Join(saveTo(ctx, c, r, f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what stays is named after the archive
	}
	return err
}

func saveTo(ctx context.Context, c *client.Client, r *apiv1.SaveRequest, w io.Writer) error {
	stream, err := c.Admin.Save(ctx, r)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(m.Data); err != nil {
			return err
		}
	}
}
