package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/export"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/push"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/internal/room"
)

// PushRequest asks for an image to be uploaded to the repository that Ref names,
// which is also how it is found here.
type PushRequest struct {
	Ref  string
	Auth Auth
	// Compression is that of layers which neither are kept as they were pulled nor
	// are in the registry: gzip, the default, zstd or none.
	Compression string
	// Progress is as that of a PullRequest.
	Progress func(Progress)
}

// Push uploads an image and returns the digest of the manifest that the registry
// has then. It is the one that was pulled where all layers are kept or the registry
// has them; else another one, with the same config and diffIDs.
func (s *Service) Push(ctx context.Context, r PushRequest) (digest.Digest, error) {
	compression, err := export.ParseCompression(r.Compression, export.Gzip)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", r.Ref, err)
	}
	record, _, release, err := s.saved(r.Ref)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", r.Ref, err)
	}
	defer release()
	local := s.downloads.Load().localName(s.catalog.Index(), r.Ref)
	name, err := reference.Parse(local)
	if err != nil || name.Digest != "" || !s.catalog.Index().Has(local) {
		return "", fmt.Errorf("push %s: give the image a name in the registry by berth tag, and push that: %w", r.Ref, errs.Invalid)
	}
	d, err := s.push(ctx, record, name, r, compression)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", local, room.Explain(err, s.options.Root, 0))
	}
	return d, s.catalog.Do(func(tx *catalog.Tx) error {
		if _, ok := tx.Record(record.ID); !ok {
			return nil // removed meanwhile
		}
		return tx.SetName(reference.Name{Domain: name.Domain, Path: name.Path, Digest: d}.String(), record.ID)
	})
}

func (s *Service) push(ctx context.Context, record catalog.Record, name reference.Name, r PushRequest, c export.Compression) (digest.Digest, error) {
	repository, err := s.downloads.Load().registry.Repository(name, r.Auth)
	if err != nil {
		return "", err
	}
	target, err := repository.Target(ctx)
	if err != nil {
		return "", err
	}
	i := push.Image{Manifest: record.Manifest, Config: ispec.Descriptor{Digest: record.ID}, Artifact: record.Artifact != nil}
	if i.Data, err = s.blobs.ReadAll(record.Manifest.Digest, manifest.MaxSize); err != nil {
		return "", err
	}
	if i.Artifact {
		i.Config = record.Artifact.Config
	} else if i.Config.Size, err = s.blobs.Size(record.ID); err != nil {
		return "", err
	}
	for _, l := range record.Layers {
		i.Layers = append(i.Layers, push.Layer{Layer: export.Layer(l), Known: s.repositoriesOf(l.Blob.Digest, name)})
	}
	p := &push.Pusher{Exporter: s.exporter(), Target: target, Compression: c}
	if r.Progress != nil {
		p.Report = func(d ispec.Descriptor, phase string, done, total int64) {
			r.Progress(Progress{Digest: d.Digest.String(), Offset: done, Total: total, Phase: phase})
		}
	}
	d, err := p.Push(ctx, i, name.Tag)
	return d.Digest, err
}

// maxKnown bounds the repositories that are asked for one layer.
const maxKnown = 4

// repositoriesOf returns other repositories of a name's registry that images here
// with a blob come from.
func (s *Service) repositoriesOf(d digest.Digest, n reference.Name) []string {
	var known []string
	s.catalog.With(func(tx *catalog.Tx) {
		for ref, id := range tx.Names() {
			has := slices.ContainsFunc(tx.All()[id].Layers, func(l catalog.Layer) bool { return l.Blob.Digest == d })
			r, err := reference.Parse(ref)
			if has && err == nil && r.Digest != "" && r.Domain == n.Domain && r.Path != n.Path && !slices.Contains(known, r.Path) {
				known = append(known, r.Path)
			}
		}
	})
	slices.SortFunc(known, strings.Compare)
	return known[:min(len(known), maxKnown)]
}
