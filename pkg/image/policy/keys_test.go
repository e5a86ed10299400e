package policy

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/signature"
	"github.com/berth-run/berth/test/signing"
)

func sigstoreKey(t *testing.T, kind string) *signing.Sigstore {
	t.Helper()
	k, err := signing.NewSigstore(kind)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t *testing.T, k *signing.Sigstore, payload []byte) signature.Signature {
	t.Helper()
	l, err := k.SignPayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	return signature.Signature{Payload: l.Payload, Notes: l.Notes}
}

const wantedDigest = digest.Digest("sha256:" + gpgDigest)

func TestEachKindOfKeyVerifies(t *testing.T) {
	payload := signing.Payload(cosignType, "quay.io/a:1", wantedDigest)
	for _, kind := range []string{"ecdsa", "rsa", "ed25519"} {
		mine, other := sigstoreKey(t, kind), sigstoreKey(t, kind)
		p := requiring(t, fmt.Sprintf(`{"type": "sigstoreSigned", "keyData": %q}`, base64.StdEncoding.EncodeToString(mine.Public())))
		s := subject(t, "quay.io/a:1", gpgDigest)
		judged(t, kind, p.Check(s, []signature.Signature{signed(t, mine, payload)}), "")
		judged(t, kind+" of another", p.Check(s, []signature.Signature{signed(t, other, payload)}), "not by a key")
		judged(t, kind+" second", p.Check(s, []signature.Signature{signed(t, other, payload), signed(t, mine, payload)}), "")
		changed := signed(t, mine, payload)
		changed.Payload = bytes.Replace(changed.Payload, []byte("quay.io/a:1"), []byte("quay.io/b:1"), 1)
		judged(t, kind+" changed", p.Check(subject(t, "quay.io/b:1", gpgDigest), []signature.Signature{changed}), "has been changed")
	}
}

func TestPayloadsAreReadStrictly(t *testing.T) {
	key := sigstoreKey(t, "ecdsa")
	p := requiring(t, fmt.Sprintf(`{"type": "sigstoreSigned", "keyData": %q}`, base64.StdEncoding.EncodeToString(key.Public())))
	good := string(signing.Payload(cosignType, "quay.io/a:1", wantedDigest))
	for name, c := range map[string]struct{ payload, want string }{
		"good":                {good, ""},
		"optional is null":    {strings.Replace(good, `{"creator":"test"}`, "null", 1), ""},
		"other optional":      {strings.Replace(good, `"creator":"test"`, `"team":["a"],"timestamp":1`, 1), ""},
		"creator no string":   {strings.Replace(good, `"test"`, "1", 1), "creator"},
		"timestamp no number": {strings.Replace(good, `"creator":"test"`, `"timestamp":1.5`, 1), "timestamp"},
		"no optional":         {strings.Replace(good, `,"optional":{"creator":"test"}`, "", 1), `"optional" is missing`},
		"more":                {strings.Replace(good, `"optional"`, `"more":1,"optional"`, 1), "more: the key is not known"},
		"more critical":       {strings.Replace(good, `"type"`, `"not-before":1,"type"`, 1), "critical.not-before: the key is not known"},
		"two names":           {strings.Replace(good, `"docker-reference"`, `"docker-reference":"quay.io/b:1","docker-reference"`, 1), "twice"},
		"two criticals":       {strings.Replace(good, `{"critical"`, `{"critical":{},"critical"`, 1), "twice"},
		"other type":          {strings.Replace(good, cosignType, simpleType, 1), "has type"},
		"no digest":           {strings.Replace(good, wantedDigest.String(), "", 1), "it is empty"},
		"digest is a path":    {strings.Replace(good, wantedDigest.String(), "sha256:../../x", 1), "digest"},
		"no JSON":             {"hello", "line 1"},
		"huge":                {good + strings.Repeat(" ", maxPayload), "more than"},
		"deep":                {strings.Replace(good, `"test"`, strings.Repeat("[", 1000), 1), "nested"},
	} {
		judged(t, name, p.Check(subject(t, "quay.io/a:1", gpgDigest), []signature.Signature{signed(t, key, []byte(c.payload))}), c.want)
	}
}

func TestASignatureOfTheIndexServes(t *testing.T) {
	key := sigstoreKey(t, "ecdsa")
	p := requiring(t, fmt.Sprintf(`{"type": "sigstoreSigned", "keyData": %q}`, base64.StdEncoding.EncodeToString(key.Public())))
	sig := signed(t, key, signing.Payload(cosignType, "quay.io/a:1", wantedDigest))
	judged(t, "index", p.Check(subject(t, "quay.io/a:1", rekorDigest, gpgDigest), []signature.Signature{sig}), "")
	judged(t, "other", p.Check(subject(t, "quay.io/a:1", rekorDigest, cosignDigest), []signature.Signature{sig}), "for the manifest")
}

// A few kilobytes may inflate to gigabytes.
func TestCompressedSignaturesAreBounded(t *testing.T) {
	var b bytes.Buffer
	b.Write([]byte{0xa3, 1}) // a compressed packet of indeterminate length, by deflate
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	header := []byte{0xfc, 0xff, 0, 0, 0, 0} // a packet of a private type, which readers skip
	header[2], header[3] = size>>24, size>>16&0xff
	_, _ = w.Write(header)
	zeroes := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = w.Write(zeroes)
	}
	_ = w.Close()
	keys, err := parseKeyring(fixture(t, "public-key.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (signedBy{keys: keys}).open(b.Bytes()); !errors.Is(err, pgperrors.ErrMessageTooLarge) {
		t.Errorf("got %v", err)
	}
}

// ca makes a certificate authority and a certificate for a key.
func ca(t *testing.T, key *signing.Sigstore, change func(leaf *x509.Certificate)) (root, leaf []byte) {
	t.Helper()
	authority := sigstoreKey(t, "ecdsa")
	top := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	below := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: top.NotBefore, NotAfter: top.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, EmailAddresses: []string{"ada@example.com"}, DNSNames: []string{"build.example.com"},
	}
	change(below)
	var out [][]byte
	for _, c := range []struct {
		template *x509.Certificate
		public   any
	}{{top, authority.Signer().Public()}, {below, key.Signer().Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, top, c.public, authority.Signer())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out[0], out[1]
}

func TestCertificatesOfOnesOwnAuthority(t *testing.T) {
	key := sigstoreKey(t, "ecdsa")
	payload := signing.Payload(cosignType, "quay.io/a:1", wantedDigest)
	otherRoot, _ := ca(t, key, func(*x509.Certificate) {})
	for name, c := range map[string]struct {
		subject string
		change  func(*x509.Certificate)
		root    []byte
		want    string
	}{
		"email":         {`"subjectEmail": "ada@example.com"`, func(*x509.Certificate) {}, nil, ""},
		"host":          {`"subjectHostname": "build.example.com"`, func(*x509.Certificate) {}, nil, ""},
		"both":          {`"subjectEmail": "ada@example.com", "subjectHostname": "build.example.com"`, func(*x509.Certificate) {}, nil, ""},
		"other email":   {`"subjectEmail": "eve@example.com"`, func(*x509.Certificate) {}, nil, "not for"},
		"other host":    {`"subjectEmail": "ada@example.com", "subjectHostname": "x.example.com"`, func(*x509.Certificate) {}, nil, "x.example.com"},
		"ended":         {`"subjectEmail": "ada@example.com"`, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, nil, "expired"},
		"for a server":  {`"subjectEmail": "ada@example.com"`, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, nil, "usage"},
		"of another CA": {`"subjectEmail": "ada@example.com"`, func(*x509.Certificate) {}, otherRoot, "unknown authority"},
	} {
		root, leaf := ca(t, key, c.change)
		if c.root != nil {
			root = c.root
		}
		p := requiring(t, fmt.Sprintf(`{"type": "sigstoreSigned", "pki": {"caRootsData": %q, %s}}`, base64.StdEncoding.EncodeToString(root), c.subject))
		sig := signed(t, key, payload)
		sig.Notes[cosignCertificate] = string(leaf)
		judged(t, name, p.Check(subject(t, "quay.io/a:1", gpgDigest), []signature.Signature{sig}), c.want)
		delete(sig.Notes, cosignCertificate)
		judged(t, name+", no certificate", p.Check(subject(t, "quay.io/a:1", gpgDigest), []signature.Signature{sig}), "certificate")
	}
}
