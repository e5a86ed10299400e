// Package signing signs images for tests, as cosign and GnuPG would, with keys
// that are made on the spot.
package signing

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/test/images"
)

// Payload is what both kinds of signatures sign: that a manifest has a name.
func Payload(kind, name string, manifest digest.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":{"creator":"test"}}`,
		name, manifest, kind)
}

// Sigstore is a key of cosign's kind.
type Sigstore struct{ signer crypto.Signer }

// NewSigstore makes a key: "ecdsa", "rsa" or "ed25519".
func NewSigstore(kind string) (*Sigstore, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case "rsa":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return &Sigstore{signer}, err
}

// Signer is the private key.
func (k *Sigstore) Signer() crypto.Signer { return k.signer }

// Public is the public key in PEM.
func (k *Sigstore) Public() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		panic(err) // a key that we have made
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Layer is one signature as cosign attaches it: a payload and its annotations.
type Layer struct {
	Payload []byte
	Notes   map[string]string
}

// Sign signs that a manifest has a name.
func (k *Sigstore) Sign(name string, manifest digest.Digest) (Layer, error) {
	return k.SignPayload(Payload("cosign container image signature", name, manifest))
}

// SignPayload signs anything.
func (k *Sigstore) SignPayload(payload []byte) (Layer, error) {
	data, options := payload, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := k.signer.(ed25519.PrivateKey); !ok {
		sum := sha256.Sum256(payload)
		data, options = sum[:], crypto.SHA256
	}
	raw, err := k.signer.Sign(rand.Reader, data, options)
	return Layer{payload, map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(raw)}}, err
}

// Tag is where cosign puts the signatures of a manifest.
func Tag(manifest digest.Digest) string {
	return strings.Replace(manifest.String(), ":", "-", 1) + ".sig"
}

// Attachment is an image that holds signatures.
func Attachment(layers ...Layer) (*images.Built, error) {
	b := &images.Built{Blobs: map[digest.Digest][]byte{}}
	add := func(mediaType string, data []byte) ispec.Descriptor {
		d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		b.Blobs[d.Digest] = data
		return d
	}
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, Config: add(ispec.MediaTypeImageConfig, []byte("{}"))}
	for _, l := range layers {
		d := add("application/vnd.dev.cosign.simplesigning.v1+json", l.Payload)
		d.Annotations = l.Notes
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	b.Root = add(m.MediaType, data)
	return b, err
}

// OpenPGP is a key of GnuPG's kind.
type OpenPGP struct{ entity *openpgp.Entity }

// NewOpenPGP makes a key.
func NewOpenPGP() (*OpenPGP, error) {
	e, err := openpgp.NewEntity("Test", "", "test@example.com", nil)
	return &OpenPGP{e}, err
}

// Public is the public key.
func (k *OpenPGP) Public() []byte {
	var b bytes.Buffer
	if err := k.entity.Serialize(&b); err != nil {
		panic(err) // a key that we have made
	}
	return b.Bytes()
}

// Sign signs that a manifest has a name.
func (k *OpenPGP) Sign(name string, manifest digest.Digest) ([]byte, error) {
	return k.SignPayload(Payload("atomic container signature", name, manifest))
}

// SignPayload signs anything.
func (k *OpenPGP) SignPayload(payload []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, k.entity, nil, nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(payload); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// Lookaside writes simple signatures into a lookaside directory. path is the
// repository's, without its registry.
func Lookaside(dir, path string, manifest digest.Digest, signatures ...[]byte) error {
	to := filepath.Join(dir, fmt.Sprintf("%s@%s=%s", path, manifest.Algorithm(), manifest.Encoded()))
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for n, s := range signatures {
		if err := os.WriteFile(filepath.Join(to, fmt.Sprintf("signature-%d", n+1)), s, 0o644); err != nil {
			return err
		}
	}
	return nil
}
