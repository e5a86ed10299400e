package policy

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/signature"
)

// fixture is a file that other programs have made, see its directory's README.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "containers", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func cosigned(t testing.TB, name string) signature.Signature {
	t.Helper()
	var s signature.Signature
	if err := json.Unmarshal(fixture(t, name), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// encoded is a file's content as a keyData.
func encoded(t testing.TB, name string) string {
	return base64.StdEncoding.EncodeToString(fixture(t, name))
}

// requiring is a policy with one requirement, where @FILE stands for encoded(FILE).
func requiring(t testing.TB, requirement string) *Policy {
	t.Helper()
	for {
		before, after, ok := strings.Cut(requirement, "@@")
		if !ok {
			break
		}
		name, rest, _ := strings.Cut(after, `"`)
		requirement = before + encoded(t, name) + `"` + rest
	}
	p, err := Parse("policy.json", []byte(`{"default": [`+requirement+`]}`), os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subject(t testing.TB, ref string, digests ...string) Subject {
	t.Helper()
	n, err := reference.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	s := Subject{Name: n}
	for _, d := range digests {
		s.Digests = append(s.Digests, digest.Digest("sha256:"+d))
	}
	return s
}

const (
	gpgDigest    = "20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55"
	cosignDigest = "634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e5986a00"
	rekorDigest  = "0489474da8ea22426ece86ace6c1c0026ab2fd3cdfbbd62b7e94650266c37d9a"
)

// judged fails the test unless the outcome is the wanted one: "" for accepted,
// else a part of the reason.
func judged(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want) || errs.Of(err) != errs.Denied):
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

func TestSignaturesOfGnuPG(t *testing.T) {
	const exact = `, "signedIdentity": {"type": "exactReference", "dockerReference": "testing/manifest:latest"}}`
	const repository = `, "signedIdentity": {"type": "exactRepository", "dockerRepository": "testing/manifest"}}`
	for name, c := range map[string]struct{ signature, requirement, digest, want string }{
		"good":             {"image.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, ""},
		"no tag signed":    {"image.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + exact, gpgDigest, `for "testing/manifest"`},
		"another key":      {"image.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key-2.gpg"` + repository, gpgDigest, "key"},
		"another digest":   {"image.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, cosignDigest, "for the manifest sha256:20bf"},
		"unknown key":      {"unknown-key.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "not among the policy's"},
		"expired":          {"expired.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "expired"},
		"revoked subkey":   {"subkey-revoked.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key-with-revoked-subkey.gpg"` + repository, gpgDigest, "not accepted"},
		"corrupt":          {"corrupt.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "not accepted"},
		"not signed":       {"unsigned-literal.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "not signed"},
		"encrypted":        {"unsigned-encrypted.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "no OpenPGP message"},
		"sigstore wanted":  {"image.signature", `{"type": "sigstoreSigned", "keyData": "@@cosign.pub"}`, gpgDigest, "there is none"},
		"not a GPG key":    {"image.signature", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@cosign.pub"` + repository, gpgDigest, "no OpenPGP keys"},
		"keys unsupported": {"image.signature", `{"type": "signedBy", "keyType": "X509Certificates", "keyData": "@@public-key.gpg"` + repository, gpgDigest, "not supported"},
	} {
		sig := signature.Signature{Simple: fixture(t, c.signature)}
		err := requiring(t, c.requirement).Check(subject(t, "quay.io/anything:1", c.digest), []signature.Signature{sig})
		judged(t, name, err, c.want)
	}
}

func TestSignaturesCutShortAreRefused(t *testing.T) {
	p := requiring(t, `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg", "signedIdentity": {"type": "exactRepository", "dockerRepository": "testing/manifest"}}`)
	s := subject(t, "quay.io/anything:1", gpgDigest)
	whole := fixture(t, "image.signature")
	for n := range len(whole) - 1 { // the last byte ends the compression, not the message
		if p.Check(s, []signature.Signature{{Simple: whole[:n]}}) == nil {
			t.Fatalf("accepted after %d of %d bytes", n, len(whole))
		}
	}
}

func TestSignaturesOfCosign(t *testing.T) {
	const (
		repository = `, "signedIdentity": {"type": "matchRepository"}}`
		person     = `"oidcIssuer": "https://github.com/login/oauth", "subjectEmail": "mitr@redhat.com"`
		key        = `{"type": "sigstoreSigned", "keyData": "@@cosign.pub"`
		key2       = `{"type": "sigstoreSigned", "keyData": "@@cosign2.pub"`
		keyless    = `{"type": "sigstoreSigned", "rekorPublicKeyData": "@@rekor.pub", "fulcio": {"caData": "@@fulcio_v1.crt.pem", `
		single     = "192.168.64.2:5000/cosign-signed-single-sample:1"
	)
	for name, c := range map[string]struct{ signature, requirement, ref, digest, want string }{
		"key":               {"cosign-valid.json", key + repository, single, cosignDigest, ""},
		"one of two keys":   {"cosign-valid.json", `{"type": "sigstoreSigned", "keyDatas": ["@@cosign2.pub", "@@cosign.pub"]` + repository, single, cosignDigest, ""},
		"another key":       {"cosign-valid.json", `{"type": "sigstoreSigned", "keyData": "@@cosign2.pub"` + repository, single, cosignDigest, "not by a key of the policy"},
		"another digest":    {"cosign-valid.json", key + repository, single, rekorDigest, "for the manifest"},
		"repository":        {"cosign-valid.json", key + repository, "192.168.64.2:5000/other:1", cosignDigest, "not for 192.168.64.2:5000/other:1"},
		"without its tag":   {"cosign-valid.json", key + "}", single, cosignDigest, "not for"},
		"not in the log":    {"cosign-valid.json", key + `, "rekorPublicKeyData": "@@rekor.pub"` + repository, single, cosignDigest, "transparency log"},
		"log":               {"cosign-key-rekor-valid.json", key2 + `, "rekorPublicKeyData": "@@rekor.pub"` + repository, "192.168.64.2:5000/cosign-signed/key-1:1", rekorDigest, ""},
		"log of two":        {"cosign-key-rekor-valid.json", key2 + `, "rekorPublicKeyDatas": ["@@cosign.pub", "@@rekor.pub"]` + repository, "192.168.64.2:5000/cosign-signed/key-1:1", rekorDigest, ""},
		"another log":       {"cosign-key-rekor-valid.json", key2 + `, "rekorPublicKeyData": "@@cosign.pub"` + repository, "192.168.64.2:5000/cosign-signed/key-1:1", rekorDigest, "not signed by a Rekor key"},
		"log of another":    {"cosign-key-rekor-valid.json", `{"type": "sigstoreSigned", "keyData": "@@cosign.pub", "rekorPublicKeyData": "@@rekor.pub"` + repository, "192.168.64.2:5000/cosign-signed/key-1:1", rekorDigest, "for another key"},
		"person":            {"cosign-fulcio-rekor-valid.json", keyless + person + "}" + repository, "192.168.64.2:5000/cosign-signed/fulcio-rekor-1:1", rekorDigest, ""},
		"another person":    {"cosign-fulcio-rekor-valid.json", keyless + `"oidcIssuer": "https://github.com/login/oauth", "subjectEmail": "eve@example.com"}` + repository, "192.168.64.2:5000/cosign-signed/fulcio-rekor-1:1", rekorDigest, "mitr@redhat.com"},
		"another issuer":    {"cosign-fulcio-rekor-valid.json", keyless + `"oidcIssuer": "https://eve.example", "subjectEmail": "mitr@redhat.com"}` + repository, "192.168.64.2:5000/cosign-signed/fulcio-rekor-1:1", rekorDigest, "not from"},
		"no certificate":    {"cosign-key-rekor-valid.json", keyless + person + "}" + repository, "192.168.64.2:5000/cosign-signed/key-1:1", rekorDigest, "certificate"},
		"simple wanted":     {"cosign-valid.json", `{"type": "signedBy", "keyType": "GPGKeys", "keyData": "@@public-key.gpg"}`, single, cosignDigest, "there is none"},
		"key is no key":     {"cosign-valid.json", `{"type": "sigstoreSigned", "keyData": "@@image.signature"` + repository, single, cosignDigest, "no public key"},
		"key is missing":    {"cosign-valid.json", `{"type": "sigstoreSigned", "keyPath": "/nowhere/cosign.pub"` + repository, single, cosignDigest, "/nowhere/cosign.pub"},
		"authority missing": {"cosign-fulcio-rekor-valid.json", `{"type": "sigstoreSigned", "rekorPublicKeyData": "@@rekor.pub", "fulcio": {"caPath": "/nowhere/ca", ` + person + "}" + repository, single, rekorDigest, "/nowhere/ca"},
	} {
		err := requiring(t, c.requirement).Check(subject(t, c.ref, c.digest), []signature.Signature{cosigned(t, c.signature)})
		judged(t, name, err, c.want)
	}
}

// What is not signed itself is bound to what is by the log entry.
func TestPartsOfASignatureCannotBeExchanged(t *testing.T) {
	p := requiring(t, `{"type": "sigstoreSigned", "rekorPublicKeyData": "@@rekor.pub", "fulcio": {"caData": "@@fulcio_v1.crt.pem",
		"oidcIssuer": "https://github.com/login/oauth", "subjectEmail": "mitr@redhat.com"}, "signedIdentity": {"type": "matchRepository"}}`)
	s := subject(t, "192.168.64.2:5000/cosign-signed/fulcio-rekor-1:1", rekorDigest)
	for name, change := range map[string]func(*signature.Signature){
		"payload": func(s *signature.Signature) { s.Payload = append(s.Payload, ' ') },
		"signature": func(s *signature.Signature) {
			s.Notes[cosignSignature] = base64.StdEncoding.EncodeToString([]byte("MEQCIB"))
		},
		"no signature": func(s *signature.Signature) { delete(s.Notes, cosignSignature) },
		"time": func(s *signature.Signature) {
			s.Notes[cosignBundle] = strings.Replace(s.Notes[cosignBundle], "1674247893", "1674247894", 1)
		},
		"index": func(s *signature.Signature) {
			s.Notes[cosignBundle] = strings.Replace(s.Notes[cosignBundle], "11605770", "11605771", 1)
		},
		"more in entry": func(s *signature.Signature) {
			s.Notes[cosignBundle] = strings.Replace(s.Notes[cosignBundle], `{"body"`, `{"x":1,"body"`, 1)
		},
		"entry of others": func(s *signature.Signature) {
			s.Notes[cosignBundle] = cosigned(t, "cosign-key-rekor-valid.json").Notes[cosignBundle]
		},
		"no entry":       func(s *signature.Signature) { delete(s.Notes, cosignBundle) },
		"huge entry":     func(s *signature.Signature) { s.Notes[cosignBundle] = strings.Repeat(" ", maxEntry+1) },
		"no chain":       func(s *signature.Signature) { delete(s.Notes, cosignChain) },
		"its own root":   func(s *signature.Signature) { s.Notes[cosignChain] = s.Notes[cosignCertificate] },
		"no certificate": func(s *signature.Signature) { delete(s.Notes, cosignCertificate) },
		"two":            func(s *signature.Signature) { s.Notes[cosignCertificate] += s.Notes[cosignCertificate] },
	} {
		sig := cosigned(t, "cosign-fulcio-rekor-valid.json")
		change(&sig)
		judged(t, name, p.Check(s, []signature.Signature{sig}), "not accepted")
	}
}
