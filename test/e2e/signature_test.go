package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/signing"
)

// writeConfig writes a file that the node reads, until the test ends.
func writeConfig(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(berth.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) }) // the test may have removed it
}

// signer is a key, and what a namespace's policy says of it.
type signer struct {
	*signing.Sigstore
	t *testing.T
}

func newSigner(t *testing.T) signer {
	t.Helper()
	k, err := signing.NewSigstore("ecdsa")
	if err != nil {
		t.Fatal(err)
	}
	return signer{k, t}
}

// demand makes the policy of a namespace that wants the key's signature.
func (s signer) demand(namespace string) {
	s.t.Helper()
	writeConfig(s.t, "policies/"+namespace+".json", fmt.Sprintf(
		`{"default": [{"type": "sigstoreSigned", "keyData": %q, "signedIdentity": {"type": "matchRepository"}}]}`, base64.StdEncoding.EncodeToString(s.Public())))
}

// attach signs an image as cosign does.
func (s signer) attach(r *registry.Server, repository string, manifest digest.Digest) {
	s.t.Helper()
	l, err := s.Sign(r.Host+"/"+repository, manifest)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := signing.Attachment(l)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Put(repository, signing.Tag(manifest), b)
}

func pullFor(t *testing.T, ref, namespace string) error {
	t.Helper()
	_, err := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{
		Image:         &cri.ImageSpec{Image: ref, UserSpecifiedImage: ref},
		SandboxConfig: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: namespace, Uid: "u"}},
	})
	return err
}

// wantRefused wants the word by which kubelet knows what has happened.
func wantRefused(t *testing.T, what string, err error) {
	t.Helper()
	if s := status.Convert(err); s.Code() != codes.Unknown || !strings.HasPrefix(s.Message(), "SignatureValidationFailed: ") {
		t.Errorf("%s: %v", what, err)
	}
}

func TestANamespaceRunsOnlyWhatItsPolicyAccepts(t *testing.T) {
	writeConfig(t, "registries.d/a.yaml", "default-docker: {use-sigstore-attachments: true}")
	key := newSigner(t)
	key.demand("signed")
	s := startRegistry(t, nil)
	b := shipped(t)
	ref := s.Put("app", "1", b)
	wantRefused(t, "an image without a signature", pullFor(t, ref, "signed"))
	if i := imageStatus(t, ref); i != nil {
		t.Errorf("there is %v", i)
	}
	newSigner(t).attach(s, "app", b.Root.Digest)
	wantRefused(t, "a signature of another key", pullFor(t, ref, "signed"))
	if err := pullFor(t, ref, "free"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, ref) })

	inNamespace := func(name string) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = name }
	}
	config := sh("cat /mark")
	config.Image = &cri.ImageSpec{Image: imageStatus(t, ref).Id, UserSpecifiedImage: ref}
	free, strict := runPod(t, inNamespace("free")), runPod(t, inNamespace("signed"))
	create := func(p *pod) (string, error) {
		r, err := berth.Runtime.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
		return r.GetContainerId(), err
	}
	if out := free.start(config).output(); !strings.HasPrefix(out, "mark ") {
		t.Errorf("in another namespace: %q", out)
	}
	_, err := create(strict)
	wantRefused(t, "a container of what others have pulled", err)

	key.attach(s, "app", b.Root.Digest)
	if err := pullFor(t, ref, "signed"); err != nil {
		t.Fatalf("signed: %v", err)
	}
	s.Close() // the signatures are here
	if out := strict.start(config).output(); !strings.HasPrefix(out, "mark ") {
		t.Errorf("signed: %q", out)
	}
	newSigner(t).demand("signed") // the policy changes between pull and create
	config.Metadata.Attempt++
	_, err = create(strict)
	wantRefused(t, "after a change of the policy", err)
}

func TestAPullWhoseSignaturesCannotBeHadSaysSo(t *testing.T) {
	writeConfig(t, "registries.d/a.yaml", "default-docker: {use-sigstore-attachments: true}")
	newSigner(t).demand("signed")
	s := startRegistry(t, &registry.Registry{Hook: func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			panic(http.ErrAbortHandler)
		}
		return false
	}})
	ref := s.Put("app", "1", shipped(t))
	err := pullFor(t, ref, "signed")
	if m := status.Convert(err); m.Code() != codes.Unknown || !strings.HasPrefix(m.Message(), "RegistryUnavailable: ") {
		t.Errorf("got %v", err)
	}
	writeConfig(t, "policies/signed.json", `{"default": [{"type": "sigstoreSigned"}]}`)
	err = pullFor(t, ref, "signed")
	wantRefused(t, "a policy that is wrong", err)
	if m := status.Convert(err).Message(); !strings.Contains(m, "policies/signed.json: line 1: default[0]: exactly one of keyPath") {
		t.Errorf("got %q", m)
	}
}
