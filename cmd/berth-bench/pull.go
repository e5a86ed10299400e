package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func pullCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "pull",
		Short: "PullImage of --ref, removed before each time",
	}
	c.Flags().StringVar(&o.Ref, "ref", "", "the image to pull")
	c.Flags().StringVar(&o.Auth, "auth", "", "user:password for it")
	return c
}

// pull removes and pulls one image N times; it is removed at the end.
func pull(ctx context.Context, d *driver) (report, error) {
	if d.Ref == "" {
		return report{}, errors.New("pull needs --ref")
	}
	spec := &cri.ImageSpec{Image: d.Ref}
	r := &cri.PullImageRequest{Image: spec}
	if user, password, ok := strings.Cut(d.Auth, ":"); ok {
		r.Auth = &cri.AuthConfig{Username: user, Password: password}
	}
	var t timings
	for range d.N {
		if _, err := d.Images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec}); err != nil {
			return report{}, err
		}
		_, err := t.Time("PullImage", func() error {
			_, err := d.Images.PullImage(ctx, r)
			return err
		})
		if err != nil {
			return report{}, err
		}
	}
	_, err := d.Images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec})
	return report{Rows: t.Rows()}, err
}
