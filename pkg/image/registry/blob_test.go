package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

const mib = 1 << 20

var (
	content = func() []byte {
		b := make([]byte, 20*mib+1)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
		return b
	}()
	whole = ispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
)

func serveContent(t *testing.T, r *testregistry.Registry) *testregistry.Server {
	t.Helper()
	s := testregistry.Start(r)
	t.Cleanup(s.Close)
	s.SetBlob(whole.Digest, content)
	return s
}

// get fetches the blob from an offset on.
func get(t *testing.T, o registry.Options, host string, a registry.Auth, offset int64) error {
	t.Helper()
	o.Hosts.PlainHTTP = []string{host} // as a manifest would have told
	c := registry.New(o)
	defer c.Close()
	r, err := c.Repository(reference.Name{Domain: host, Path: "app"}, a)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Blob(t.Context(), whole, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err == nil && !bytes.Equal(data, content[offset:]) {
		t.Errorf("wrong bytes, %d of %d", len(data), len(content)-int(offset))
	}
	return err
}

func TestBlobSurvives(t *testing.T) {
	type faults []testregistry.Fault
	for name, r := range map[string]*testregistry.Registry{
		"nothing":                  {},
		"latency":                  {Line: testregistry.Line{Latency: 20 * time.Millisecond}},
		"little bandwidth":         {Line: testregistry.Line{Bandwidth: 8 * mib}},
		"no ranges":                {Faults: faults{{NoRange: true}}},
		"no ranges in the middle":  {Faults: faults{{Skip: 2, NoRange: true}}},
		"another range":            {Faults: faults{{Skip: 1, Times: 1, WrongRange: true}}},
		"dropped connections":      {Faults: faults{{Times: 3, DropAfter: mib + 1}}},
		"all connections dropped":  {Faults: faults{{DropAfter: 3*mib + 1}}},
		"429 for some seconds":     {Faults: faults{{Skip: 1, Times: 2, Status: 429, RetryAfter: "1"}}},
		"429 at the beginning":     {Faults: faults{{Times: 1, Status: 429, RetryAfter: "1"}}},
		"a burst of 503":           {Faults: faults{{Skip: 1, Times: 4, Status: 503}}},
		"a burst of 500":           {Faults: faults{{Times: 3, Status: 500}}},
		"a connection that stalls": {Faults: faults{{Skip: 2, Times: 1, StallAfter: mib}}},
		"one that trickles":        {Faults: faults{{Skip: 2, Times: 1, Trickle: 20 << 10}}},
		"an endless body":          {Faults: faults{{Endless: true}}},
		"tokens that expire":       {Token: true, TokenUses: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveContent(t, r)
			o := registry.Options{StallTimeout: 500 * time.Millisecond, StallRate: 100 << 10}
			for _, offset := range []int64{0, 5*mib + 3} {
				if err := get(t, o, s.Host, registry.Auth{}, offset); err != nil {
					t.Errorf("from %d: %v", offset, err)
				}
			}
		})
	}
}

func TestBlobHonoursADate(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(2 * time.Second)
	var early atomic.Int64
	s := serveContent(t, &testregistry.Registry{
		Faults: []testregistry.Fault{{Times: 1, Status: 503, RetryAfter: at.UTC().Format(http.TimeFormat)}},
		Hook: func(_ http.ResponseWriter, _ *http.Request) bool {
			if time.Now().Before(at.Truncate(time.Second)) {
				early.Add(1)
			}
			return false
		},
	})
	if err := get(t, registry.Options{}, s.Host, registry.Auth{}, 0); err != nil || early.Load() != 1 {
		t.Errorf("%v; %d requests before the time", err, early.Load())
	}
}

func TestBlobFailureTellsWhatWhereAndWhatToDo(t *testing.T) {
	type faults []testregistry.Fault
	for name, c := range map[string]struct {
		registry *testregistry.Registry
		kind     errs.Kind
		texts    []string
	}{
		"429": {&testregistry.Registry{Faults: faults{{Status: 429, RetryAfter: "3600"}}}, errs.Unavailable, []string{
			"429 Too Many Requests", "asks to come back in 1h0m0s", "try again later, or log in",
		}},
		"503":      {&testregistry.Registry{Faults: faults{{Status: 503}}}, errs.Unavailable, []string{"503 Service Unavailable", "2 attempts"}},
		"500":      {&testregistry.Registry{Faults: faults{{Status: 500}}}, errs.Unavailable, []string{"500 Internal", "check that it is up"}},
		"denied":   {&testregistry.Registry{Username: "ada", Password: "x"}, errs.Denied, []string{"wants credentials", "check the credentials for it"}},
		"absent":   {&testregistry.Registry{Faults: faults{{Status: 404}}}, errs.NotFound, []string{"404", "still complete there"}},
		"stalled":  {&testregistry.Registry{Faults: faults{{StallAfter: 100}}}, errs.Unavailable, []string{"it stalled: 100 bytes came in 500ms", "stall_timeout"}},
		"trickles": {&testregistry.Registry{Faults: faults{{Trickle: 1000}}}, errs.Unavailable, []string{"it stalled", "stall_timeout"}},
		"dropped":  {&testregistry.Registry{Faults: faults{{DropAfter: 1000}}}, errs.Unavailable, []string{"unexpected EOF", "pull again"}},
		"too short": {&testregistry.Registry{Faults: faults{{Short: 7}}}, errs.Invalid, []string{
			fmt.Sprintf("it has %d bytes of a blob of %d", len(content)-7, len(content)), "push the image to it again",
		}},
		"no answer": {&testregistry.Registry{Line: testregistry.Line{Latency: time.Hour}}, errs.Unavailable, []string{"it stalled: 0 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveContent(t, c.registry)
			err := get(t, registry.Options{StallTimeout: 500 * time.Millisecond, StallRate: 100 << 10, MaxRetries: 1}, s.Host, registry.Auth{}, 0)
			if errs.Of(err) != c.kind {
				t.Errorf("kind %q", errs.Of(err))
			}
			for _, text := range append(c.texts, s.Host+": ", whole.Digest.String()) {
				if !strings.Contains(fmt.Sprint(err), text) {
					t.Errorf("%q is not in %q", text, err)
				}
			}
		})
	}
	closed := serveContent(t, nil)
	closed.Close()
	err := get(t, registry.Options{MaxRetries: -1}, closed.Host, registry.Auth{}, 0)
	if text := fmt.Sprint(err); errs.Of(err) != errs.Unavailable || !strings.Contains(text, "connection refused") || !strings.Contains(text, "check that it is up") {
		t.Errorf("got %v", err)
	}
}

func TestRedirectsAreRememberedWithoutCredentials(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t-pa55"
	for name, uses := range map[string]int{"for good": 0, "until they expire": 2} {
		t.Run(name, func(t *testing.T) {
			elsewhere := serveContent(t, &testregistry.Registry{LinkUses: uses, Hook: func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") != "" {
					t.Errorf("credentials went to %s", r.URL)
				}
				return false
			}})
			s := serveContent(t, &testregistry.Registry{Username: "ada", Password: password, Redirect: "http://" + elsewhere.Host})
			auth := registry.Auth{Username: "ada", Password: password}
			if err := get(t, registry.Options{}, s.Host, auth, 0); err != nil {
				t.Error(err)
			}
			asked := s.Requests(http.MethodGet, "/v2/app/blobs/"+whole.Digest.String())
			if asked > 2 && uses == 0 || asked < 3 && uses > 0 { // the first without credentials
				t.Errorf("the registry was asked %d times", asked)
			}
		})
	}
	refusing := serveContent(t, &testregistry.Registry{Faults: []testregistry.Fault{{Status: 403}}})
	s := serveContent(t, &testregistry.Registry{Redirect: "http://" + refusing.Host})
	err := get(t, registry.Options{MaxRetries: 1}, s.Host, registry.Auth{}, 0)
	if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "redirected to "+refusing.Host+", which answers 403 Forbidden") ||
		strings.Contains(err.Error(), "signature") {
		t.Errorf("got %v", err)
	}
}

func TestBlobRefusesWhatCannotBe(t *testing.T) {
	r, err := registry.New(registry.Options{}).Repository(reference.Name{Domain: "example.com", Path: "app"}, registry.Auth{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []ispec.Descriptor{
		{Digest: "sha256:../../x", Size: 1}, {Digest: whole.Digest, Size: -1}, {Digest: whole.Digest, Size: 1},
	} {
		if _, err := r.Blob(t.Context(), d, 2); !errors.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", d, err)
		}
	}
}
