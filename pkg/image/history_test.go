package image

import (
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/layer"
)

func TestHistoryIsNewestFirstAndHasEveryLayer(t *testing.T) {
	layers, err := layer.Open(t.TempDir(), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	records, err := catalog.Open(t.Context(), t.TempDir(), nil, func(*catalog.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{layers: layers, catalog: records}
	s.downloads.Store(&downloads{})
	r := catalog.Record{ID: digest.FromString("x"), Layers: []catalog.Layer{{DiffID: digest.FromString("a")}, {DiffID: digest.FromString("b")}}}
	r.Config.History = []ispec.History{{CreatedBy: "ADD a"}, {CreatedBy: "ENV", EmptyLayer: true}}
	if _, err := records.Save(t.Context(), r, nil); err != nil {
		t.Fatal(err)
	}
	i, steps, err := s.History(r.ID.String())
	if err != nil || i.ID != r.ID || len(steps) != 3 {
		t.Fatalf("%v, %v, %v", i.ID, steps, err)
	}
	if steps[0].Comment != "<missing>" || steps[1].CreatedBy != "ENV" || steps[2].CreatedBy != "ADD a" {
		t.Errorf("got %+v", steps)
	}
}
