package image_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/signing"
	"github.com/berth-run/berth/test/testutil"
)

// guarded is a service with a signature policy, a registry, and the keys of who
// signs.
type guarded struct {
	t testing.TB
	*image.Service
	dir, policy, lookaside string
	registry               *testregistry.Server
	cosign, other          *signing.Sigstore
	gpg                    *signing.OpenPGP
}

func guard(t testing.TB, r *testregistry.Registry) *guarded {
	t.Helper()
	testutil.Root(t)
	g := &guarded{t: t, dir: t.TempDir(), registry: serve(t, r)}
	g.policy, g.lookaside = filepath.Join(g.dir, "policy.json"), filepath.Join(g.dir, "lookaside")
	var failed [4]error
	g.cosign, failed[0] = signing.NewSigstore("ecdsa")
	g.other, failed[1] = signing.NewSigstore("ecdsa")
	g.gpg, failed[2] = signing.NewOpenPGP()
	failed[3] = os.MkdirAll(filepath.Join(g.dir, "namespaces"), 0o700)
	if err := errors.Join(failed[:]...); err != nil {
		t.Fatal(err)
	}
	g.write("registries.d/a.yaml", "default-docker: {lookaside: 'file://"+g.lookaside+"', use-sigstore-attachments: true}")
	g.write("policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	g.start()
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *guarded) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		g.t.Fatal(err)
	}
}

// start opens the service.
func (g *guarded) start() {
	g.t.Helper()
	s, err := image.Open(g.t.Context(), image.Options{
		Root: filepath.Join(g.dir, "root"), State: filepath.Join(g.dir, "state"), KeepBlobs: true,
		Signatures: trust.Options{Policy: g.policy, Namespaces: filepath.Join(g.dir, "namespaces"), RegistriesD: []string{filepath.Join(g.dir, "registries.d")}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.Service = s
}

// restart opens the service again, while the registry is away.
func (g *guarded) restart() {
	g.t.Helper()
	if err := g.Close(); err != nil {
		g.t.Fatal(err)
	}
	g.registry.Close()
	g.start()
}

// require writes a policy with one requirement for all images.
func (g *guarded) require(requirement string) {
	g.t.Helper()
	g.write("policy.json", `{"default": [`+requirement+`]}`)
}

const byRepository = `"signedIdentity": {"type": "matchRepository"}}`

func (g *guarded) byCosign() string {
	return fmt.Sprintf(`{"type": "sigstoreSigned", "keyData": %q, %s`, base64.StdEncoding.EncodeToString(g.cosign.Public()), byRepository)
}

func (g *guarded) byGPG() string {
	return fmt.Sprintf(`{"type": "signedBy", "keyType": "GPGKeys", "keyData": %q, %s`, base64.StdEncoding.EncodeToString(g.gpg.Public()), byRepository)
}

// attach puts signatures of a manifest where cosign puts them.
func (g *guarded) attach(manifest digest.Digest, layers ...signing.Layer) *images.Built {
	g.t.Helper()
	b, err := signing.Attachment(layers...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.registry.Put("app", signing.Tag(manifest), b)
	return b
}

func (g *guarded) sign(key *signing.Sigstore, name string, manifest digest.Digest) signing.Layer {
	g.t.Helper()
	l, err := key.Sign(name, manifest)
	if err != nil {
		g.t.Fatal(err)
	}
	return l
}

func (g *guarded) pull(ref, namespace string) (image.Image, error) {
	return g.Pull(g.t.Context(), image.PullRequest{Ref: ref, Namespace: namespace})
}

// refused fails the test unless err says so with the reason, and nothing is here.
func (g *guarded) refused(what string, err error, want string) {
	g.t.Helper()
	if !errors.Is(err, image.ErrRefused) || errs.Of(err) != errs.Denied || !strings.Contains(err.Error(), want) {
		g.t.Errorf("%s: %v, want %q", what, err, want)
	}
	nothing(g.t, g.Service)
	if kept := g.signatures(); len(kept) != 0 {
		g.t.Errorf("%s: %q are kept", what, kept)
	}
}

func (g *guarded) signatures() []string {
	g.t.Helper()
	found, err := filepath.Glob(filepath.Join(g.dir, "root/images/signatures/*"))
	if err != nil {
		g.t.Fatal(err)
	}
	return found
}

// What CreateContainer pays for the policy.
func BenchmarkAdmit(b *testing.B) {
	for _, c := range []struct{ name, policy string }{
		{"no policy", ""}, {"accept", `{"default": [{"type": "insecureAcceptAnything"}]}`}, {"signed", "signed"},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := guard(b, nil)
			built := build(b, sample("x"))
			ref := g.registry.Put("app", "v1", built)
			g.attach(built.Root.Digest, g.sign(g.cosign, g.registry.Host+"/app", built.Root.Digest))
			i, err := g.pull(ref, "")
			if err != nil {
				b.Fatal(err)
			}
			service := g.Service
			switch c.policy {
			case "":
				service = open(b, b.TempDir())
			case "signed":
				g.require(g.byCosign())
			}
			<-time.After(3 * time.Second) // until the policy's times are believed
			for b.Loop() {
				if err := service.Admit(context.Background(), i, ref, "default"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
