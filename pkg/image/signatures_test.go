package image_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/signing"
)

func TestPullsOfWhatIsNotSignedAreRefused(t *testing.T) {
	g := guard(t, nil)
	b := build(t, sample("x"))
	ref, manifest := g.registry.Put("app", "v1", b), b.Root.Digest
	name := g.registry.Host + "/app"
	g.require(g.byCosign())
	for what, c := range map[string]struct {
		layer signing.Layer
		want  string
	}{
		"another key":        {g.sign(g.other, name, manifest), "not by a key of the policy"},
		"another digest":     {g.sign(g.cosign, name, digest.FromString("x")), "for the manifest"},
		"another repository": {g.sign(g.cosign, name+"2", manifest), "not for " + ref},
		"huge":               {signing.Layer{Payload: make([]byte, 1<<20)}, "a signature of"},
		"not signed":         {signing.Layer{Payload: []byte("{}")}, "no annotation"},
	} {
		g.attach(manifest, c.layer)
		_, err := g.pull(ref, "")
		g.refused(what, err, c.want)
	}
	good := g.sign(g.cosign, name, manifest)
	g.attach(manifest, good)
	g.registry.SetBlob(digest.FromBytes(good.Payload), bytes.ToUpper(good.Payload))
	_, err := g.pull(ref, "")
	g.refused("changed on the way", err, "others than promised")
	g.registry.SetBlob(digest.FromBytes(good.Payload), good.Payload[:10])
	_, err = g.pull(ref, "")
	g.refused("truncated", err, "it has 10 bytes of a blob")
	g.registry.SetBlob(digest.FromBytes(good.Payload), good.Payload)
	if _, err := g.pull(ref, ""); err != nil {
		t.Errorf("signed: %v", err)
	}
	if kept := g.signatures(); len(kept) != 1 {
		t.Errorf("kept: %q", kept)
	}
	if err := g.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	nothing(t, g.Service)
	if kept := g.signatures(); len(kept) != 0 {
		t.Errorf("kept after the image: %q", kept)
	}
}

func TestPullsWithoutAnySignatureAreRefused(t *testing.T) {
	g := guard(t, nil)
	ref := g.registry.Put("app", "v1", build(t, sample("x")))
	for _, requirement := range []string{g.byCosign(), g.byGPG()} {
		g.require(requirement)
		_, err := g.pull(ref, "")
		g.refused(requirement[:20], err, "is required and there is none")
	}
}

func TestSimpleSignaturesComeFromTheLookaside(t *testing.T) {
	g := guard(t, nil)
	b := build(t, sample("x"))
	ref, name := g.registry.Put("app", "v1", b), g.registry.Host+"/app"
	g.require(g.byGPG())
	for what, c := range map[string]struct {
		name     string
		manifest digest.Digest
		cut      int
		want     string
	}{
		"another digest":     {name, digest.FromString("x"), 0, "for the manifest"},
		"another repository": {name + "2", b.Root.Digest, 0, "not for " + ref},
		"truncated":          {name, b.Root.Digest, 20, "not accepted"},
	} {
		s, err := g.gpg.Sign(c.name, c.manifest)
		if err != nil {
			t.Fatal(err)
		}
		if err := signing.Lookaside(g.lookaside, "app", b.Root.Digest, s[:len(s)-c.cut]); err != nil {
			t.Fatal(err)
		}
		_, err = g.pull(ref, "")
		g.refused(what, err, c.want)
	}
	s, err := g.gpg.Sign(name, b.Root.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := signing.Lookaside(g.lookaside, "app", b.Root.Digest, []byte("junk"), s); err != nil {
		t.Fatal(err)
	}
	if _, err := g.pull(ref, ""); err != nil {
		t.Error(err)
	}
}

func TestASignedIndexServesForItsImages(t *testing.T) {
	g := guard(t, nil)
	b, err := images.BuildIndex(sample("x"))
	if err != nil {
		t.Fatal(err)
	}
	ref := g.registry.Put("app", "v1", b)
	g.require(g.byCosign())
	g.attach(b.Root.Digest, g.sign(g.cosign, g.registry.Host+"/app", b.Root.Digest))
	i, err := g.pull(ref, "")
	if err != nil {
		t.Fatal(err)
	}
	if i.Digest == b.Root.Digest {
		t.Fatal("the index is no index")
	}
	g.restart()
	if err := g.Admit(t.Context(), i, ref, ""); err != nil {
		t.Error(err)
	}
}

// An archive may claim any name. A signature of what it claims to be is none of
// what it holds.
func TestAnArchiveCannotBorrowASignature(t *testing.T) {
	g := guard(t, nil)
	signed := build(t, sample("good"))
	name := g.registry.Host + "/app"
	ref := g.registry.Put("app", "v1", signed)
	g.attach(signed.Root.Digest, g.sign(g.cosign, name, signed.Root.Digest))
	var archive bytes.Buffer
	if err := images.DockerArchive(&archive, sample("evil"), ref, name+"@"+signed.Root.Digest.String()); err != nil {
		t.Fatal(err)
	}
	loaded, err := g.Load(t.Context(), &archive)
	if err != nil || len(loaded) != 1 {
		t.Fatalf("%v, %v", loaded, err)
	}
	if len(loaded[0].RepoDigests) != 0 {
		t.Errorf("it has the digests %q", loaded[0].RepoDigests)
	}
	g.require(g.byCosign())
	if err := g.Admit(t.Context(), loaded[0], ref, ""); !errors.Is(err, image.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsRejectedAsksNoRegistry(t *testing.T) {
	asked := 0
	g := guard(t, &testregistry.Registry{Hook: func(http.ResponseWriter, *http.Request) bool { asked++; return false }})
	ref := g.registry.Put("app", "v1", build(t, sample("x")))
	g.require(`{"type": "reject"}`)
	_, err := g.pull(ref, "")
	g.refused("reject", err, "no image is accepted")
	g.write("policy.json", `{"default": [{"type": "rejct"}]}`)
	_, err = g.pull(ref, "")
	g.refused("a policy that is wrong", err, `policy.json: line 1: default[0]: requirement of type "rejct"`)
	if err := os.Remove(g.policy); err != nil {
		t.Fatal(err)
	}
	_, err = g.pull(ref, "")
	g.refused("a policy that is missing", err, "is not there")
	if asked != 0 {
		t.Errorf("the registry was asked %d times", asked)
	}
}

func TestANamespaceHasItsOwnPolicy(t *testing.T) {
	g := guard(t, nil)
	ref := g.registry.Put("app", "v1", build(t, sample("x")))
	g.write("namespaces/strict.json", `{"default": [{"type": "reject"}]}`)
	_, err := g.pull(ref, "strict")
	g.refused("strict", err, "strict.json")
	g.require(`{"type": "reject"}`)
	for _, namespace := range []string{"", "other", "../namespaces/free", "a/free"} {
		_, err = g.pull(ref, namespace)
		g.refused(namespace, err, "policy.json")
	}
	g.write("namespaces/free.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	i, err := g.pull(ref, "free")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Admit(t.Context(), i, ref, "free"); err != nil {
		t.Errorf("free: %v", err)
	}
	if err := g.Admit(t.Context(), i, ref, "strict"); !errors.Is(err, image.ErrRefused) {
		t.Errorf("strict: %v", err)
	}
}

func TestUseIsJudgedByThePolicyOfThatMoment(t *testing.T) {
	g := guard(t, nil)
	b := build(t, sample("x"))
	ref, name := g.registry.Put("app", "v1", b), g.registry.Host+"/app"
	i, err := g.pull(ref, "")
	if err != nil {
		t.Fatal(err)
	}
	admit := func(what, asked string, accepted bool) {
		t.Helper()
		if err := g.Admit(t.Context(), i, asked, ""); (err == nil) != accepted || err != nil && !errors.Is(err, image.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	admit("no requirement", ref, true)
	g.require(g.byCosign())
	admit("a policy that has come since", ref, false)
	admit("by id", i.ID.String(), false)
	g.attach(b.Root.Digest, g.sign(g.cosign, name, b.Root.Digest))
	admit("signed since", ref, true)
	admit("by id, signed", i.ID.Encoded()[:12], true)
	admit("under another name", "elsewhere.example/app:1", false)
	g.cosign = g.other
	g.require(g.byCosign())
	admit("with another key", ref, false)
	g.require(`{"type": "insecureAcceptAnything"}`)
	admit("without the requirement", ref, true)
}

func TestUseNeedsNoRegistryAfterAPull(t *testing.T) {
	g := guard(t, &testregistry.Registry{Username: "ada", Password: "secret"})
	b := build(t, sample("x"))
	ref := g.registry.Put("app", "v1", b)
	g.attach(b.Root.Digest, g.sign(g.cosign, g.registry.Host+"/app", b.Root.Digest))
	g.require(g.byCosign())
	i, err := g.Pull(t.Context(), image.PullRequest{Ref: ref, Auth: image.Auth{Username: "ada", Password: "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	g.restart() // it remembers nothing
	if err := g.Admit(t.Context(), i, ref, ""); err != nil {
		t.Error(err)
	}
	g.require(g.byGPG()) // signatures that nobody has fetched
	g.write("registries.d/a.yaml", "default-docker: {lookaside: 'http://"+g.registry.Host+"/sig'}")
	if err := g.Admit(t.Context(), i, ref, ""); !errors.Is(err, image.ErrRefused) || !strings.Contains(err.Error(), "cannot be fetched") {
		t.Errorf("another requirement: %v", err)
	}
}

func TestARegistryThatIsDownIsNoRefusal(t *testing.T) {
	g := guard(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			panic(http.ErrAbortHandler)
		}
		return false
	}})
	g.require(g.byCosign())
	_, err := g.pull(g.registry.Put("app", "v1", build(t, sample("x"))), "")
	if errors.Is(err, image.ErrRefused) || !errors.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	nothing(t, g.Service)
}

func TestVolumesAreMountedAsThePolicyOfTheirNamespaceSays(t *testing.T) {
	g := guard(t, nil)
	ref := g.registry.Put("app", "v1", build(t, sample("x")))
	i, err := g.pull(ref, "")
	if err != nil {
		t.Fatal(err)
	}
	g.write("namespaces/strict.json", `{"default": [{"type": "reject"}]}`)
	r := image.VolumesRequest{ContainerID: "c1", Namespace: "strict", Sources: []image.VolumeSource{{Ref: i.ID.String(), Asked: ref, Path: "/v"}}}
	if _, err := g.MountVolumes(t.Context(), r); !errors.Is(err, image.ErrRefused) || !errors.Is(err, image.ErrVolume) {
		t.Errorf("where it is refused: %v", err)
	}
	r.Namespace = "other"
	if _, err := g.MountVolumes(t.Context(), r); err != nil {
		t.Errorf("where it is accepted: %v", err)
	}
	if err := g.Unmount(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
}
