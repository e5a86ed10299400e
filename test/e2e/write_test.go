package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

func TestAPushedImageIsPulledAsTheSame(t *testing.T) {
	s := startRegistry(t, &registry.Registry{Username: "ada", Password: "secret", Token: true, Strict: true})
	b := shipped(t)
	ref := s.Put("team/app", "v1", b)
	command(t, "pull", "-q", "-u", "ada:secret", ref)
	t.Cleanup(func() { removeImage(t, b.Config.String()) })
	// Its layers are in that registry: mounted from there, with the manifest that it has.
	near := s.Host + "/other/app:v2"
	command(t, "tag", ref, near)
	if got := try(t, "", "push", near); got.code != 1 || !strings.Contains(got.stderr, "permission denied") {
		t.Errorf("nobody's push: %v", got)
	}
	got := try(t, "secret\n", "push", "-u", "ada", "--password-stdin", near)
	if got.code != 0 || got.stdout != b.Root.Digest.String()+"\n" || !strings.Contains(got.stderr, "mounted") {
		t.Errorf("to the same registry: %v", got)
	}
	if i := imageStatus(t, near); !slices.Contains(i.GetRepoDigests(), s.Host+"/other/app@"+b.Root.Digest.String()) {
		t.Errorf("names %v", i.GetRepoDigests())
	}
	// Another registry has none of it: the layers are packed again.
	for _, compression := range []string{"gzip", "zstd", "none"} {
		other := startRegistry(t, &registry.Registry{Strict: true})
		far := other.Host + "/app:" + compression
		command(t, "tag", ref, far)
		if got := try(t, "", "push", "-q", "--compression", compression, far); got.code != 0 || !strings.HasPrefix(got.stdout, "sha256:") || got.stderr != "" {
			t.Fatalf("%s: %v", compression, got)
		}
		if got := try(t, "", "push", "--compression", compression, far); got.code != 0 || !strings.Contains(got.stderr, "exists") || strings.Contains(got.stderr, "uploading") {
			t.Errorf("%s again: %v", compression, got)
		}
		removeImage(t, b.Config.String())
		if id := strings.TrimSpace(command(t, "pull", "-q", far)); id != b.Config.String() {
			t.Errorf("%s: pulled %s, pushed %s", compression, id, b.Config)
		}
		if got := says(t, far); !strings.HasPrefix(got, "mark") {
			t.Errorf("%s: %q", compression, got)
		}
		command(t, "tag", far, ref)
	}
	for _, name := range []string{b.Config.String(), s.Host + "/none:1"} {
		if got := try(t, "", "push", name); got.code != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestASavedImageHasNoBlobsOfItsOwn(t *testing.T) {
	const name = "e2e.local/save:packed"
	if err := load(name, marked(t, "packed")); err != nil {
		t.Fatal(err)
	}
	id := imageStatus(t, name).Id
	t.Cleanup(func() { removeImage(t, id) })
	sizes := map[string]int64{}
	for _, compression := range []string{"none", "gzip", "zstd"} {
		path := filepath.Join(t.TempDir(), "saved.tar")
		command(t, "save", "-o", path, "--compression", compression, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes[compression] = info.Size()
		removeImage(t, id)
		command(t, "load", "-i", path)
		if i := imageStatus(t, name); i.GetId() != id {
			t.Errorf("%s: %v, was %s", compression, i, id)
		}
	}
	if sizes["gzip"] >= sizes["none"] || sizes["zstd"] >= sizes["none"] {
		t.Errorf("sizes %v", sizes)
	}
}

func TestHistoryAndDiskUsage(t *testing.T) {
	const name = "e2e.local/history:1"
	if err := load(name, marked(t, "history")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, name) })
	id := imageStatus(t, name).Id
	if out := command(t, "history", name); !strings.Contains(out, "CREATED BY") || !strings.Contains(out, "test/images") || strings.Count(out, "\n") != 3 {
		t.Errorf("history: %s", out)
	}
	var steps []struct {
		ID   string
		Size int64
	}
	if err := json.Unmarshal([]byte(command(t, "history", "-o", "json", name)), &steps); err != nil || len(steps) != 2 || steps[0].ID != id || steps[1].Size < 100_000 {
		t.Errorf("history: %v, %+v", err, steps)
	}
	container := named(t)
	background(t, container, name, "sh", "-c", "head -c 3000000 /dev/zero >/big; sleep 1000")
	rows := func() map[string]struct{ Total, Active, Size, Reclaimable int64 } {
		var list []struct {
			Type                             string
			Total, Active, Size, Reclaimable int64
		}
		if err := json.Unmarshal([]byte(command(t, "system", "df", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		all := map[string]struct{ Total, Active, Size, Reclaimable int64 }{}
		for _, r := range list {
			all[r.Type] = struct{ Total, Active, Size, Reclaimable int64 }{r.Total, r.Active, r.Size, r.Reclaimable}
		}
		return all
	}
	all := rows()
	if i, c := all["Images"], all["Containers"]; i.Total < 2 || i.Active < 1 || i.Size < 1_000_000 || i.Reclaimable >= i.Size || c.Total < 1 || c.Active < 1 {
		t.Errorf("df: %+v", all)
	}
	if out := command(t, "df", "-v"); !strings.Contains(out, "UNIQUE SIZE") || !strings.Contains(out, container) {
		t.Errorf("df -v: %s", out)
	}
	command(t, "rm", "-f", container)
}

func TestPruneTakesWhatNobodyUses(t *testing.T) {
	const tagged, used, moved = "e2e.local/prune:tagged", "e2e.local/prune:used", "e2e.local/prune:moved"
	ids := map[string]string{}
	for _, name := range []string{tagged, used, moved} {
		if err := load(name, marked(t, "prune "+name)); err != nil {
			t.Fatal(err)
		}
		id := imageStatus(t, name).Id
		ids[name] = id
		t.Cleanup(func() { removeImage(t, id) })
	}
	if err := load(moved, marked(t, "another")); err != nil { // the first one has no tag now
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, moved) })
	container := named(t)
	background(t, container, used, "sleep", "1000")
	out := command(t, "image", "prune", "--filter", "until=2001-01-01")
	if strings.Contains(out, "Deleted") || !strings.Contains(out, "Total reclaimed space: 0B") {
		t.Errorf("until 2001: %s", out)
	}
	out = command(t, "image", "prune", "-f")
	if !strings.Contains(out, "Deleted: "+ids[moved]) || strings.Contains(out, ids[tagged]) || strings.Contains(out, "space: 0B") {
		t.Errorf("without a tag: %s", out)
	}
	for _, name := range []string{tagged, used, moved, busybox} {
		if imageStatus(t, name) == nil {
			t.Errorf("%s is gone", name)
		}
	}
	if got := try(t, "", "image", "prune", "--filter", "label=x"); got.code != 1 {
		t.Errorf("another filter: %v", got)
	}
	out = command(t, "image", "prune", "-a", "-f")
	if !strings.Contains(out, "Deleted: "+ids[tagged]) || strings.Contains(out, ids[used]) {
		t.Errorf("all: %s", out)
	}
	command(t, "rm", "-f", container)
	b, err := images.Busybox() // it went too: others need it
	if err != nil {
		t.Fatal(err)
	}
	if err := load(busybox, b); err != nil {
		t.Fatal(err)
	}
}
