package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/client"
)

// image is one entry of `berth images`.
type image struct {
	ID          string   `json:"id"`
	RepoTags    []string `json:"repoTags"`
	RepoDigests []string `json:"repoDigests"`
	Size        int64    `json:"size"`
	Pinned      bool     `json:"pinned,omitempty"`
}

func imagesCommand(a *app) *cobra.Command {
	var quiet, digests bool
	var f format
	cmd := &cobra.Command{
		Use:   "images [REPOSITORY]",
		Short: "List images",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			resp, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
			if err != nil {
				return err
			}
			list := imageViews(resp.Images)
			if len(args) > 0 {
				list = imagesNamed(list, args[0])
			}
			if quiet {
				for _, v := range list {
					fmt.Fprintln(a.out, client.ShortID(v.ID))
				}
				return nil
			}
			return f.print(a.out, list, func(w io.Writer) { imageTable(w, list, digests) })
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	cmd.Flags().BoolVar(&digests, "digests", false, "show the manifests' digests")
	f.flag(cmd, "the list")
	return cmd
}

func imageViews(images []*runtimeapi.Image) []image {
	list := []image{}
	for _, i := range images {
		list = append(list, image{ID: i.Id, RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Size: int64(i.Size), Pinned: i.Pinned})
	}
	slices.SortFunc(list, func(a, b image) int {
		return cmp.Or(slices.Compare(a.RepoTags, b.RepoTags), cmp.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(list, func(a, b image) bool { return a.ID == b.ID }) // listed for each runtime handler
}

// imageTable writes one row for each name of each image.
func imageTable(w io.Writer, list []image, digests bool) {
	header := []string{"REPOSITORY", "TAG", "IMAGE ID", "SIZE"}
	if digests {
		header = slices.Insert(header, 2, "DIGEST")
	}
	var rows [][]string
	for _, v := range list {
		for _, name := range v.names() {
			repository, tag := cutTag(name)
			row := []string{shortImage(repository), tag, client.ShortID(v.ID), size(v.Size)}
			if digests {
				row = slices.Insert(row, 2, digestOf(v, repository))
			}
			rows = append(rows, row)
		}
	}
	table(w, header, rows)
}

// names are the image's tags, or the repositories that its digests name.
func (v image) names() []string {
	if len(v.RepoTags) > 0 {
		return v.RepoTags
	}
	var names []string
	for _, d := range v.RepoDigests {
		repository, _, _ := strings.Cut(d, "@")
		names = append(names, repository+":<none>")
	}
	if len(names) == 0 {
		return []string{"<none>:<none>"}
	}
	return names
}

// imagesNamed leaves the images, and of each the tags, of a repository or of
// that one name.
func imagesNamed(list []image, want string) []image {
	other := func(name string) bool {
		repository, _ := cutTag(name)
		return shortImage(repository) != shortImage(want) && shortImage(name) != shortImage(want)
	}
	kept := []image{}
	for _, v := range list {
		if slices.ContainsFunc(v.names(), func(name string) bool { return !other(name) }) {
			v.RepoTags = slices.DeleteFunc(slices.Clone(v.RepoTags), other)
			kept = append(kept, v)
		}
	}
	return kept
}

// cutTag splits a name at the colon that is not a port's.
func cutTag(name string) (repository, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}

func digestOf(v image, repository string) string {
	for _, d := range v.RepoDigests {
		if name, digest, _ := strings.Cut(d, "@"); name == repository {
			return digest
		}
	}
	return "<none>"
}
