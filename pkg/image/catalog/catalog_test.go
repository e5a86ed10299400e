package catalog

import (
	_ "crypto/sha512" // of some ids
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func open(t *testing.T, dir string, inspect Inspect) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), dir, []string{"*/pinned/*"}, inspect)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func whole(*Record) error { return nil }

func record(id string) Record {
	return Record{
		ID: digest.FromString(id), Manifest: ispec.Descriptor{Digest: digest.FromString(id + "'s manifest")}, Size: 1,
		Layers: []Layer{{DiffID: digest.FromString(id + "'s layer"), Blob: ispec.Descriptor{Digest: digest.FromString(id + "'s blob")}}},
	}
}

func save(t *testing.T, c *Catalog, r Record, names ...string) {
	t.Helper()
	if _, err := c.Save(t.Context(), r, names); err != nil {
		t.Fatal(err)
	}
}

func get(c *Catalog, ref string) (Image, error) {
	return c.Index().Get(ref, func() string { return ref })
}

const (
	web   = "docker.io/library/web:1"
	other = "docker.io/pinned/web:1"
)

func TestRecordsAndNamesAreThereAgain(t *testing.T) {
	dir := t.TempDir()
	r := record("web")
	save(t, open(t, dir, whole), r, web, other)
	i, err := get(open(t, dir, whole), web)
	if err != nil || i.ID != r.ID || !slices.Equal(i.RepoTags, []string{web, other}) || !i.Pinned || len(i.Layers) != 1 {
		t.Errorf("got %+v, %v", i, err)
	}
}

func TestImagesAreFoundByIDsOfEachAlgorithm(t *testing.T) {
	c := open(t, t.TempDir(), whole)
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		r := record("config")
		r.ID = a.FromString("config")
		save(t, c, r)
		if i, err := get(c, r.ID.String()); err != nil || i.ID != r.ID {
			t.Errorf("%s: %v, %v", r.ID, i.ID, err)
		}
	}
	id := digest.SHA256.FromString("config")
	for _, ref := range []string{id.Encoded(), id.Encoded()[:minPrefix], "sha256:" + id.Encoded()[:12]} {
		if i, err := get(c, ref); err != nil || i.ID != id {
			t.Errorf("%s: %v, %v", ref, i.ID, err)
		}
	}
	for ref, want := range map[string]error{"docker.io/library/absent:1": errs.NotFound, "NO NAME": errs.Invalid, id.Encoded()[:minPrefix-1]: errs.NotFound} {
		if _, err := get(c, ref); !errors.Is(err, want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestWhatIsDamagedIsNotShownUntilItIsWhole(t *testing.T) {
	dir := t.TempDir()
	r := record("web")
	save(t, open(t, dir, whole), r, web)
	var fault error = errs.NotFound
	c := open(t, dir, func(*Record) error { return fault })
	if _, err := get(c, web); !errors.Is(err, errs.NotFound) {
		t.Errorf("damaged: %v", err)
	}
	if all := c.Records(); len(all) != 1 || all[0].Fault == nil || all[0].Since.IsZero() {
		t.Errorf("records: %+v", all)
	}
	fault = nil
	c.Review(t.Context(), digest.FromString("something else"))
	if len(c.Index().Images()) != 0 {
		t.Error("it was looked at though nothing of it has changed")
	}
	c.Review(t.Context(), r.Layers[0].DiffID)
	if _, err := get(c, web); err != nil {
		t.Errorf("whole: %v", err)
	}
}

func TestABadRecordIsSetAsideAndMendedByTheNext(t *testing.T) {
	dir := t.TempDir()
	r := record("web")
	save(t, open(t, dir, whole), r, web)
	for _, kind := range []string{"records", "refs"} {
		files, err := filepath.Glob(filepath.Join(dir, kind, "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir, whole)
	faults := func() (n int) {
		c.With(func(tx *Tx) { n = len(tx.Faults()) })
		return n
	}
	if n := faults(); n != 2 || len(c.Index().Images()) != 0 {
		t.Errorf("%d faults, %d images", n, len(c.Index().Images()))
	}
	save(t, c, r, web)
	if n := faults(); n != 0 {
		t.Errorf("%d faults after a pull", n)
	}
}

func TestLeasesAndRecordsAreUsed(t *testing.T) {
	c := open(t, t.TempDir(), whole)
	r := record("web")
	save(t, c, r, web)
	used := func(d digest.Digest) (yes bool) {
		c.With(func(tx *Tx) { yes = tx.Used()[d] })
		return yes
	}
	coming := digest.FromString("coming")
	one, two := c.Lease(coming), c.Lease()
	two.Add(coming)
	one.Release()
	if !used(coming) || !used(r.Layers[0].DiffID) || !used(r.Layers[0].Blob.Digest) || !used(r.Manifest.Digest) {
		t.Error("something that is used is not")
	}
	two.Release()
	if used(coming) {
		t.Error("it is used though no lease is left")
	}
	if err := c.Do(func(tx *Tx) error { return tx.Forget(r.ID) }); err != nil {
		t.Fatal(err)
	}
	if used(r.ID) || c.Index().Has(web) {
		t.Error("it is used though it is forgotten")
	}
}

func TestReadersSeeWhatWasDoneBeforeAFailure(t *testing.T) {
	c := open(t, t.TempDir(), whole)
	r := record("web")
	save(t, c, r)
	failure := errors.New("no more")
	err := c.Do(func(tx *Tx) error {
		if err := tx.SetName(web, r.ID); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) || !c.Index().Has(web) {
		t.Errorf("%v, seen: %t", err, c.Index().Has(web))
	}
}
