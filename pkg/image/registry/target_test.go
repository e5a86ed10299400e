package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

// pushed is one blob's upload, and how often the blob was opened from where.
type pushed struct {
	registry.Options
	repository string
	auth       registry.Auth
	opened     []int64
}

func (p *pushed) open(_ context.Context, offset int64) (io.ReadCloser, error) {
	p.opened = append(p.opened, offset)
	return io.NopCloser(bytes.NewReader(content[offset:])), nil
}

func (p *pushed) target(t *testing.T, host string) (*registry.Target, error) {
	t.Helper()
	p.Hosts.PlainHTTP = []string{host}
	if p.UploadChunk == 0 {
		p.UploadChunk = 4 * mib
	}
	c := registry.New(p.Options)
	t.Cleanup(c.Close)
	if p.repository == "" {
		p.repository = "app"
	}
	r, err := c.Repository(reference.Name{Domain: host, Path: p.repository}, p.auth)
	if err != nil {
		t.Fatal(err)
	}
	return r.Target(t.Context())
}

func (p *pushed) upload(t *testing.T, host string) error {
	t.Helper()
	target, err := p.target(t, host)
	if err != nil {
		return err
	}
	return target.Upload(t.Context(), whole, p.open, nil)
}

func arrived(t *testing.T, s *testregistry.Server, repository string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Host + "/v2/" + repository + "/blobs/" + whole.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(data, content) {
		t.Errorf("%s, %d bytes, %v", resp.Status, len(data), err)
	}
}

func TestUploadSurvives(t *testing.T) {
	type faults []testregistry.Fault
	for name, c := range map[string]struct {
		faults faults
		most   int // how often the blob is opened
	}{
		"nothing":                     {nil, 6},
		"a broken connection":         {faults{{Skip: 1, Times: 1, DropAfter: mib}}, 7},
		"many broken connections":     {faults{{Times: 12, DropAfter: mib}}, 18},
		"a burst of 503":              {faults{{Skip: 1, Times: 2, Status: 503}}, 8},
		"429 and when":                {faults{{Skip: 2, Times: 1, Status: 429, RetryAfter: "1"}}, 7},
		"an upload that is forgotten": {faults{{Skip: 3, Times: 1, Forget: true}}, 10},
		"a connection that stalls":    {faults{{Skip: 1, Times: 1, StallAfter: mib}}, 7},
		"a PUT that fails":            {faults{{Skip: 6, Times: 1, Status: 500}}, 6},
		"a PUT that is forgotten":     {faults{{Skip: 6, Times: 1, Forget: true}}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testregistry.Start(&testregistry.Registry{Strict: true, UploadFaults: c.faults})
			defer s.Close()
			p := &pushed{Options: registry.Options{StallTimeout: 500 * time.Millisecond, MaxRetries: 3}}
			if err := p.upload(t, s.Host); err != nil {
				t.Fatal(err)
			}
			if len(p.opened) > c.most {
				t.Errorf("opened %d times: %d", len(p.opened), p.opened)
			}
			s.Strict = false
			arrived(t, s, "app")
		})
	}
}

func TestUploadGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		r    *testregistry.Registry
		kind error
		says string
	}{
		"503 for ever":   {&testregistry.Registry{UploadFaults: []testregistry.Fault{{Status: 503}}}, errs.Unavailable, "503"},
		"no credentials": {&testregistry.Registry{Username: user, Password: password}, errs.Denied, "credentials"},
		"refused":        {&testregistry.Registry{UploadFaults: []testregistry.Fault{{Status: 403}}}, errs.Denied, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testregistry.Start(c.r)
			defer s.Close()
			p := &pushed{Options: registry.Options{MaxRetries: 1}}
			if err := p.upload(t, s.Host); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), s.Host) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAServerWithoutChunksGetsTheWhole(t *testing.T) {
	s := testregistry.Start(&testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		w.WriteHeader(http.StatusMethodNotAllowed)
		return true
	}})
	defer s.Close()
	p := &pushed{}
	if err := p.upload(t, s.Host); err != nil {
		t.Fatal(err)
	}
	arrived(t, s, "app")
}

func TestAMountBringsNothing(t *testing.T) {
	s := testregistry.Start(&testregistry.Registry{Strict: true})
	defer s.Close()
	first := &pushed{repository: "team/base"}
	if err := first.upload(t, s.Host); err != nil {
		t.Fatal(err)
	}
	second := &pushed{repository: "team/app"}
	target, err := second.target(t, s.Host)
	if err != nil {
		t.Fatal(err)
	}
	if has, err := target.Has(t.Context(), whole); err != nil || has {
		t.Errorf("has %v, %v", has, err)
	}
	if target.Mount(t.Context(), whole, "team/other") {
		t.Error("mounted from where it is not")
	}
	if !target.Mount(t.Context(), whole, "team/base") {
		t.Error("not mounted")
	}
	if has, err := target.Has(t.Context(), whole); err != nil || !has {
		t.Errorf("has %v, %v", has, err)
	}
	arrived(t, s, "team/app")
}

func TestAPushKeepsCredentialsToItsRegistry(t *testing.T) {
	for _, token := range []bool{false, true} {
		var got seen
		elsewhere := testregistry.Start(&testregistry.Registry{Hook: got.hook})
		defer elsewhere.Close()
		s := testregistry.Start(&testregistry.Registry{Username: user, Password: password, Token: token})
		defer s.Close()
		p := &pushed{auth: registry.Auth{Username: user, Password: password}, Options: registry.Options{MaxRetries: -1}}
		if err := p.upload(t, s.Host); err != nil {
			t.Fatal(err)
		}
		s.UploadHost = "http://" + elsewhere.Host
		if err := p.upload(t, s.Host); err == nil {
			t.Error("the other host knows the upload")
		}
		if len(got.requests()) == 0 {
			t.Error("the other host was not asked")
		}
		for _, r := range got.requests() {
			if shows(r, password) || r.Header.Get("Authorization") != "" {
				t.Errorf("%s %s has %v", r.Method, r.URL, r.Header)
			}
		}
	}
}

func TestAManifestGoesUnderItsTag(t *testing.T) {
	s := testregistry.Start(&testregistry.Registry{Strict: true})
	defer s.Close()
	b := built(t)
	p := &pushed{}
	target, err := p.target(t, s.Host)
	if err != nil {
		t.Fatal(err)
	}
	data := b.Blobs[b.Root.Digest]
	if err := target.Manifest(t.Context(), b.Root, data, "v1"); !errors.Is(err, errs.Invalid) {
		t.Errorf("before its blobs: %v", err)
	}
	for d, blob := range b.Blobs {
		if d == b.Root.Digest {
			continue
		}
		open := func(_ context.Context, offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(blob[offset:])), nil
		}
		if err := target.Upload(t.Context(), ispec.Descriptor{Digest: d, Size: int64(len(blob))}, open, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Manifest(t.Context(), b.Root, data, "v1"); err != nil {
		t.Fatal(err)
	}
	if n := s.Requests(http.MethodPut, "/v2/app/manifests/v1"); n != 2 {
		t.Errorf("%d requests", n)
	}
}
