package image_test

import (
	"slices"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
)

func TestWhatIsSharedCountsOnce(t *testing.T) {
	s := service(t)
	base := sample("x").Layers[0]
	for n, name := range []string{"one:1", "two:1", "three:1"} {
		top := images.Layer{Files: []images.File{{Name: name, Data: slices.Repeat([]byte{byte(n), byte(n + 7)}, 50_000)}}}
		loaded(t, s, name, images.Image{Layers: []images.Layer{base, top}})
	}
	used := map[string]bool{}
	for _, name := range []string{"one:1", "two:1"} {
		i, err := s.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		used[i.ID.String()] = true
	}
	all, total, needed, err := s.Usages(t.Context(), used)
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	sum, spare := all[0].Shared, int64(0)
	for _, u := range all {
		sum += u.Unique
		if !used[u.Image.ID.String()] {
			spare = u.Unique
		}
		if u.Shared != all[0].Shared || u.Shared == 0 || u.Unique < 100_000 {
			t.Errorf("%v: %d shared, %d not", u.Image.RepoTags, u.Shared, u.Unique)
		}
	}
	if sum != total || needed != total-spare {
		t.Errorf("%d in all, parts are %d; %d needed, %d spare", total, sum, needed, spare)
	}
	gone, freed, err := s.Prune(t.Context(), image.PruneOptions{All: true, Used: func() map[string]bool { return used }})
	if err != nil || len(gone) != 1 || freed != spare {
		t.Errorf("prune: %v, %d of %d, %v", gone, freed, spare, err)
	}
}

func TestPruneSparesWhatIsPinnedOrYounger(t *testing.T) {
	s := service(t)
	old, young := sample("old"), sample("young")
	old.Created, young.Created = time.Unix(1_000_000_000, 0), time.Unix(1_600_000_000, 0)
	loaded(t, s, "old:1", old)
	loaded(t, s, "young:1", young)
	loaded(t, s, "kept/old:1", func() images.Image { i := sample("kept"); i.Created = old.Created; return i }())
	s.SetPinned([]string{"docker.io/kept/*"})
	none := func() map[string]bool { return nil }
	if gone, freed, err := s.Prune(t.Context(), image.PruneOptions{Used: none}); err != nil || len(gone) > 0 || freed != 0 {
		t.Errorf("all have a tag: %v, %d, %v", gone, freed, err)
	}
	gone, _, err := s.Prune(t.Context(), image.PruneOptions{All: true, Until: time.Unix(1_500_000_000, 0), Used: none})
	if err != nil || len(gone) != 1 || gone[0].RepoTags[0] != "docker.io/library/old:1" {
		t.Errorf("got %v, %v", gone, err)
	}
}
