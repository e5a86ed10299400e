package registry

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/reference"
	testregistry "github.com/berth-run/berth/test/registry"
)

func TestHostsWithWrongBytesAreNotAskedAgain(t *testing.T) {
	const text = "some content"
	d := ispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	bad := testregistry.Start(&testregistry.Registry{Faults: []testregistry.Fault{{WrongByte: true}}})
	defer bad.Close()
	good := testregistry.Start(nil)
	defer good.Close()
	c := New(Options{})
	defer c.Close()
	r, err := c.Repository(reference.Name{Domain: bad.Host, Path: "app"}, Auth{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Repository(reference.Name{Domain: good.Host, Path: "app"}, Auth{})
	if err != nil {
		t.Fatal(err)
	}
	both := append(r.Sources(), other.Sources()...)
	r.sources.Store(&both)
	read := func() string {
		t.Helper()
		b, err := r.Blob(t.Context(), d, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		data, err := io.ReadAll(b)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	for _, s := range []*testregistry.Server{bad, good} {
		s.SetBlob(d.Digest, []byte(text))
	}
	if read() == text {
		t.Fatal("the first host is asked last")
	}
	wrong := errors.New("wrong digest")
	others, err := r.Distrust(d.Digest, wrong)
	if !others || !errors.Is(err, wrong) || !strings.Contains(err.Error(), "it came from "+bad.Host+" (if its copy is damaged, clear its cache") {
		t.Errorf("%v, %v", others, err)
	}
	if got := read(); got != text {
		t.Errorf("got %q", got)
	}
	if others, err := r.Distrust(d.Digest, wrong); others || !strings.Contains(err.Error(), good.Host) {
		t.Errorf("%v, %v", others, err)
	}
	if others, err := r.Distrust(digest.FromString("another"), wrong); others || !errors.Is(err, wrong) {
		t.Errorf("of a blob that did not come: %v, %v", others, err)
	}
}
