package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/policy"
	"github.com/berth-run/berth/pkg/image/signature"
)

const (
	id    = digest.Digest("sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55")
	other = digest.Digest("sha256:0489474da8ea22426ece86ace6c1c0026ab2fd3cdfbbd62b7e94650266c37d9a")
)

func TestTheNameThatWasAskedForIsJudged(t *testing.T) {
	held := Held{ID: id, Manifest: other, Names: []string{"quay.io/a:1", "quay.io/20bf:1", "docker.io/library/20bf:latest", "quay.io/a@" + string(id)}}
	all := []string{"quay.io/a:1", "quay.io/20bf:1", "docker.io/library/20bf:latest", "quay.io/a@" + string(id)}
	for asked, want := range map[string][]string{
		"quay.io/a:1":      {"quay.io/a:1"},
		"quay.io/b:1":      {"quay.io/b:1"}, // a tag that has moved on
		"busybox":          {"docker.io/library/busybox:latest"},
		string(id):         all,
		id.Encoded():       all,
		"sha256:20bf21":    all,
		"20bf2":            all,
		"20bf":             {"docker.io/library/20bf:latest"}, // a name first, as for Get
		"20b":              {"docker.io/library/20b:latest"},
		string(other):      {"docker.io/library/sha256:" + other.Encoded()},
		"no name at all!!": all,
	} {
		var got []string
		for _, n := range held.names(asked) {
			got = append(got, n.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(asked, diff)
		}
	}
	if got := (Held{ID: id}).names(string(id)); len(got) != 1 || got[0].Path != "" {
		t.Errorf("without a name: %v", got)
	}
	n := held.names("quay.io/a:1")[0]
	if diff := cmp.Diff([]digest.Digest{other, id}, held.as(n).digests()); diff != "" {
		t.Error(diff)
	}
}

func gate(t *testing.T, text string) *Gate {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Open(Options{Policy: path}, filepath.Join(dir, "kept"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func noRepository(string, string) (signature.Repository, error) {
	return nil, errors.New("nobody asks")
}

func TestAnImageWithoutANameIsTheDefaults(t *testing.T) {
	for text, accepted := range map[string]bool{
		`{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"": [{"type": "reject"}]}}}`: true,
		`{"default": [{"type": "reject"}], "transports": {"docker": {"": [{"type": "insecureAcceptAnything"}]}}}`: false,
	} {
		err := gate(t, text).Use(t.Context(), Held{ID: id, Manifest: other}, string(id), "", noRepository)
		if (err == nil) != accepted || err != nil && !errors.Is(err, policy.ErrRefused) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOneNameThatIsAcceptedIsEnoughForAnID(t *testing.T) {
	g := gate(t, `{"default": [{"type": "reject"}], "transports": {"docker": {"quay.io/good": [{"type": "insecureAcceptAnything"}]}}}`)
	held := Held{ID: id, Manifest: other, Names: []string{"quay.io/bad:1", "quay.io/good:1"}}
	for asked, accepted := range map[string]bool{string(id): true, "quay.io/good:1": true, "quay.io/bad:1": false} {
		if err := g.Use(t.Context(), held, asked, "", noRepository); (err == nil) != accepted {
			t.Errorf("%s: %v", asked, err)
		}
	}
}

func TestAnAcceptanceIsNotBelievedForever(t *testing.T) {
	g := gate(t, `{"default": [{"type": "reject"}]}`)
	held := Held{ID: id, Manifest: other, Names: []string{"quay.io/a:1"}}
	p, err := g.Policy("")
	if err != nil {
		t.Fatal(err)
	}
	for age, accepted := range map[time.Duration]bool{verdictLife / 2: true, 2 * verdictLife: false} {
		g.accepted[verdict{p.Digest(), other, held.names("quay.io/a:1")[0]}] = time.Now().Add(-age)
		if err := g.Use(t.Context(), held, "quay.io/a:1", "", noRepository); (err == nil) != accepted {
			t.Errorf("after %s: %v", age, err)
		}
	}
}

func TestKeptSignaturesAreBoundedAndTheNewestFirst(t *testing.T) {
	g := gate(t, `{"default": [{"type": "reject"}]}`)
	large := func(n int) signature.Signature {
		return signature.Signature{Simple: append(make([]byte, maxKept/4), strconv.Itoa(n)...)}
	}
	for n := range 6 {
		if err := g.keep(id, []signature.Signature{large(n)}); err != nil {
			t.Fatal(err)
		}
	}
	got := g.kept(id)
	if diff := cmp.Diff([]signature.Signature{large(5), large(4), large(3)}, got); diff != "" {
		t.Errorf("%d are kept", len(got))
	}
	if err := g.keep(id, []signature.Signature{large(4)}); err != nil || len(g.kept(id)) != 3 {
		t.Errorf("again: %d, %v", len(g.kept(id)), err)
	}
	if all, err := g.List(); err != nil || len(all) != 1 || all[0] != id {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := os.WriteFile(g.path(id), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := g.kept(id); got != nil {
		t.Errorf("of a damaged file: %v", got)
	}
	if err := errors.Join(g.Remove(id), g.Remove(id)); err != nil {
		t.Error(err)
	}
}
