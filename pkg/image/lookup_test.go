package image

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/registry"
)

func TestImagesAreFoundByIDsOfEachAlgorithm(t *testing.T) {
	s := &Service{records: map[digest.Digest]record{}}
	s.SetDownloads(registry.Options{}, 0)
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		id := a.FromString("config")
		s.records[id] = record{ID: id}
	}
	s.publishLocked()
	for id := range s.records {
		if i, err := s.Get(id.String()); err != nil || i.ID != id {
			t.Errorf("%s: %v, %v", id, i.ID, err)
		}
	}
	if i, err := s.Get(digest.SHA256.FromString("config").Encoded()); err != nil || i.ID.Algorithm() != digest.SHA256 {
		t.Errorf("without algorithm: %v, %v", i.ID, err)
	}
	if _, err := s.Get(digest.SHA512.FromString("other").String()); !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.Invalid) {
		t.Errorf("absent: %v", err)
	}
}
