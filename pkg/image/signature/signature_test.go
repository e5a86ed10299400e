package signature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/signing"
)

func name(t testing.TB, s string) reference.Name {
	t.Helper()
	n, err := reference.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// finder returns a finder with one registries.d file.
func finder(t testing.TB, config string) *Finder {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	f := NewFinder([]string{dir})
	t.Cleanup(f.Close)
	f.Builtin = "file://" + dir + "/builtin"
	return f
}

const manifest = digest.Digest("sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55")

func TestScopesAreTheNarrowestFirst(t *testing.T) {
	for ref, want := range map[string][]string{
		"busybox:1":                       {"docker.io/library/busybox:1", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io"},
		"a.b.example:5000/x:1":            {"a.b.example:5000/x:1", "a.b.example:5000/x", "a.b.example:5000", "*.b.example", "*.example"},
		"localhost/x@" + string(manifest): {"localhost/x@" + string(manifest), "localhost/x", "localhost"},
		"[::1]:5000/x:1":                  {"[::1]:5000/x:1", "[::1]:5000/x", "[::1]:5000"},
	} {
		if diff := cmp.Diff(want, Scopes(name(t, ref))); diff != "" {
			t.Error(ref, diff)
		}
	}
}

func TestRegistriesDSaysWhereSignaturesAre(t *testing.T) {
	f := finder(t, `
default-docker:
  sigstore: file:///default
  use-sigstore-attachments: true
docker:
  quay.io:
    lookaside: https://sig.quay.io
    sigstore: https://old.quay.io
  quay.io/a:
    lookaside-staging: file:///staging
    use-sigstore-attachments: false
  "*.example.com":
    sigstore: https://sig.example.com
`)
	r, err := readRegistriesD(append(f.Dirs, "/nowhere"))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]struct {
		lookaside   string
		attachments bool
	}{
		"quay.io/b:1":       {"https://sig.quay.io", true},
		"quay.io/a/b:1":     {"https://sig.quay.io", false},
		"x.example.com/b:1": {"https://sig.example.com", true},
		"busybox":           {"file:///default", true},
	} {
		if got := r.lookaside(name(t, ref), "builtin"); got != want.lookaside || r.attachments(name(t, ref)) != want.attachments {
			t.Errorf("%s: %s, %v", ref, got, r.attachments(name(t, ref)))
		}
	}
	if none := (registriesD{}); none.lookaside(name(t, "busybox"), "builtin") != "builtin" || none.attachments(name(t, "busybox")) {
		t.Error("without a file")
	}
}

func TestWhatIsWrongInRegistriesDIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"docker: [":                                  "a.yaml",
		"dokcer: {}":                                 "dokcer",
		"docker:\n  quay.io:\n    lookasid: x":       "lookasid",
		"docker:\n  b.io: {}\n  b.io: {}":            "b.io",
		"default-docker: {lookaside: 1}":             "a.yaml",
		"default-docker: {}\ndocker: {shared: {}}":   "b.yaml",
		"default-docker: {lookaside: 'file:///x'}\n": "default-docker is in",
	} {
		f := finder(t, text)
		second := "default-docker: {}\n"
		if strings.Contains(text, "shared") {
			second = "docker: {shared: {}}\n"
		}
		if err := os.WriteFile(filepath.Join(f.Dirs[0], "b.yaml"), []byte(second), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRegistriesD(f.Dirs); err == nil || !strings.Contains(err.Error(), want) || errs.Of(err) != errs.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLookasideIsReadUpToTheFirstThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := signing.Lookaside(dir, "team/app", manifest, []byte("one"), []byte("two"), []byte("three")); err != nil {
		t.Fatal(err)
	}
	served := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(served.Close)
	for _, base := range []string{"file://" + dir, served.URL} {
		f := finder(t, "default-docker: {lookaside: '"+base+"'}")
		got, err := f.Find(t.Context(), name(t, "quay.io/team/app:1"), []digest.Digest{manifest}, Kinds{Simple: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Signature{{Simple: []byte("one")}, {Simple: []byte("two")}, {Simple: []byte("three")}}, got); diff != "" {
			t.Error(base, diff)
		}
		got, err = f.Find(t.Context(), name(t, "quay.io/team/other:1"), []digest.Digest{manifest}, Kinds{Simple: true}, nil)
		if err != nil || len(got) != 0 {
			t.Errorf("%s, other: %v, %v", base, got, err)
		}
		if got, err = f.Find(t.Context(), name(t, "quay.io/team/app:1"), []digest.Digest{manifest}, Kinds{}, nil); err != nil || len(got) != 0 {
			t.Errorf("%s, not asked for: %v, %v", base, got, err)
		}
	}
}

func TestHostileLookasides(t *testing.T) {
	for what, c := range map[string]struct {
		serve http.HandlerFunc
		kind  errs.Kind
	}{
		"endless":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxSize+1)) }, errs.Invalid},
		"ever more":   {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "again") }, errs.Invalid},
		"redirects":   {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, errs.Invalid},
		"errors":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, errs.Unavailable},
		"credentials": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, errs.Denied},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "cut")
		}, errs.Unavailable},
		"does nothing": {func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, errs.Unavailable},
	} {
		s := httptest.NewServer(c.serve)
		f := finder(t, "default-docker: {lookaside: '"+s.URL+"/x'}")
		_, err := f.Find(t.Context(), name(t, "quay.io/team/app:1"), []digest.Digest{manifest}, Kinds{Simple: true}, nil)
		if errs.Of(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
		s.Close()
	}
	f := finder(t, "default-docker: {lookaside: 'ftp://x/y'}")
	if _, err := f.Find(t.Context(), name(t, "quay.io/a:1"), []digest.Digest{manifest}, Kinds{Simple: true}, nil); !errors.Is(err, errs.Unsupported) {
		t.Errorf("scheme: %v", err)
	}
	if _, err := f.Find(t.Context(), name(t, "quay.io/a:1"), []digest.Digest{"sha256:../../etc"}, Kinds{Simple: true}, nil); err == nil {
		t.Error("a digest that is a path is taken")
	}
}

// repository serves one attachment.
type repository struct {
	tag   string
	built *images.Built
	err   error
	asked []string
}

func (r *repository) Manifest(_ context.Context, ref string, _ int64) (ispec.Descriptor, []byte, error) {
	r.asked = append(r.asked, ref)
	if r.err != nil {
		return ispec.Descriptor{}, nil, r.err
	}
	if ref != r.tag {
		return ispec.Descriptor{}, nil, errs.NotFound
	}
	return r.built.Root, r.built.Blobs[r.built.Root.Digest], nil
}

func (r *repository) Blob(_ context.Context, d ispec.Descriptor, _ int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(r.built.Blobs[d.Digest]))), nil
}

func attach(t *testing.T, layers ...signing.Layer) *repository {
	t.Helper()
	b, err := signing.Attachment(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return &repository{tag: signing.Tag(manifest), built: b}
}

const attachments = "default-docker: {use-sigstore-attachments: true}"

func TestAttachmentsAreReadWhereTheyAreAskedFor(t *testing.T) {
	r := attach(t, signing.Layer{Payload: []byte("p"), Notes: map[string]string{"a": "b"}}, signing.Layer{Payload: []byte("q")})
	find := func(config string, digests ...digest.Digest) []Signature {
		t.Helper()
		got, err := finder(t, config).Find(t.Context(), name(t, "quay.io/a:1"), digests, Kinds{Sigstore: true}, r)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := []Signature{{Payload: []byte("p"), Notes: map[string]string{"a": "b"}}, {Payload: []byte("q")}}
	if diff := cmp.Diff(want, find(attachments, digest.FromString("x"), manifest)); diff != "" {
		t.Error(diff)
	}
	if got := find("{}", manifest); len(got) != 0 || len(r.asked) != 2 {
		t.Errorf("without use-sigstore-attachments: %v, asked for %v", got, r.asked)
	}
}

func TestHostileAttachments(t *testing.T) {
	many := make([]signing.Layer, maxSignatures+1)
	for n := range many {
		many[n].Payload = []byte("p")
	}
	changed := attach(t, signing.Layer{Payload: []byte("payload")})
	changed.built.Blobs[digest.FromString("payload")] = []byte("changed")
	longer := attach(t, signing.Layer{Payload: []byte("payload")})
	longer.built.Blobs[digest.FromString("payload")] = make([]byte, maxSize+1)
	noJSON := attach(t)
	noJSON.built.Blobs[noJSON.built.Root.Digest] = []byte("x")
	away := attach(t)
	away.err = errs.Unavailable
	for what, c := range map[string]struct {
		r    *repository
		kind errs.Kind
	}{
		"many":    {attach(t, many...), errs.Invalid},
		"huge":    {attach(t, signing.Layer{Payload: make([]byte, maxSize+1)}), errs.Invalid},
		"notes":   {attach(t, signing.Layer{Notes: map[string]string{"a": strings.Repeat("b", maxSize)}}), errs.Invalid},
		"changed": {changed, errs.Invalid},
		"longer":  {longer, errs.Invalid},
		"no JSON": {noJSON, errs.Invalid},
		"away":    {away, errs.Unavailable},
	} {
		_, err := finder(t, attachments).Find(t.Context(), name(t, "quay.io/a:1"), []digest.Digest{manifest}, Kinds{Sigstore: true}, c.r)
		if errs.Of(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzRegistriesD(f *testing.F) {
	f.Add([]byte("default-docker:\n  lookaside: https://x\ndocker:\n  quay.io: {sigstore: 'file:///y', use-sigstore-attachments: true}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := finder(t, string(data))
		r, err := readRegistriesD(d.Dirs)
		if err == nil {
			_ = r.lookaside(name(t, "quay.io/a:1"), "")
		}
	})
}
