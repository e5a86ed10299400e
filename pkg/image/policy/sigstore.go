package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/berth-run/berth/pkg/image/signature"
)

// What cosign calls the parts of a signature.
const (
	cosignSignature   = "dev.cosignproject.cosign/signature"
	cosignBundle      = "dev.sigstore.cosign/bundle"
	cosignCertificate = "dev.sigstore.cosign/certificate"
	cosignChain       = "dev.sigstore.cosign/chain"
)

// sigstoreSigned wants a signature by cosign: by one of the keys, or by the key
// of a certificate that authority accepts. With rekor the signature has to be in
// the transparency log of one of these keys.
type sigstoreSigned struct {
	keys      []crypto.PublicKey
	authority authority
	rekor     []*ecdsa.PublicKey
	id        identity
}

func (r sigstoreSigned) wants() signature.Kinds { return signature.Kinds{Sigstore: true} }

func (r sigstoreSigned) check(s Subject, all []signature.Signature) error {
	of := func(sig signature.Signature) bool { return sig.Simple == nil }
	return anyOf(all, "sigstore", of, func(sig signature.Signature) error {
		if err := r.verify(sig); err != nil {
			return err
		}
		return checkPayload(sig.Payload, cosignType, r.id, s)
	})
}

// verify checks all of a signature but what its payload says.
func (r sigstoreSigned) verify(sig signature.Signature) error {
	raw, err := base64.StdEncoding.DecodeString(sig.Notes[cosignSignature])
	if err != nil || len(raw) == 0 {
		return fmt.Errorf("it has no annotation %s in base64", cosignSignature)
	}
	keys, err := r.candidates(sig, raw)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if verifies(key, sig.Payload, raw) {
			return nil
		}
	}
	return errors.New("it is not by a key of the policy, or the payload has been changed")
}

// candidates returns the keys that may have made the signature.
func (r sigstoreSigned) candidates(sig signature.Signature, raw []byte) ([]crypto.PublicKey, error) {
	if r.authority != nil {
		key, err := r.authority.certify(r.rekor, sig, raw)
		return []crypto.PublicKey{key}, err
	}
	if r.rekor == nil {
		return r.keys, nil
	}
	var failed error
	for _, key := range r.keys {
		der, err := publicDER(key)
		if err != nil {
			return nil, err
		}
		if _, err = verifyEntry(r.rekor, sig, raw, der); err == nil {
			return []crypto.PublicKey{key}, nil // an entry names one key
		}
		failed = err
	}
	return nil, failed
}

// verifies checks a signature as cosign makes them: over SHA-256, but for
// Ed25519, which hashes itself.
func verifies(key crypto.PublicKey, payload, raw []byte) bool {
	sum := sha256.Sum256(payload)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], raw)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], raw) == nil
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, payload, raw)
	}
	return false
}
