package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berth-run/berth/pkg/image/signature"
)

// maxCertificates bounds a chain that comes with a signature.
const maxCertificates = 16

// authority accepts the certificate of a signature and returns its key.
type authority interface {
	certify(rekor []*ecdsa.PublicKey, sig signature.Signature, raw []byte) (crypto.PublicKey, error)
}

// Where Fulcio writes who has told it the identity: as bare bytes, and as a UTF8String.
var (
	issuerOID   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	issuerV2OID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	sanOID      = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// fulcio accepts certificates that a Fulcio gave to one person for some minutes.
// The log entry proves that the signature was made within these: the whole chain
// is verified for that moment. The certificate's own log (its SCT) is not looked
// at, since the entry holds the whole certificate already.
type fulcio struct {
	roots         *x509.CertPool
	issuer, email string
}

func (f fulcio) certify(rekor []*ecdsa.PublicKey, sig signature.Signature, raw []byte) (crypto.PublicKey, error) {
	leaf, chain, err := certificates(sig)
	if err != nil {
		return nil, err
	}
	at, err := verifyEntry(rekor, sig, raw, leaf.Raw)
	if err != nil {
		return nil, err
	}
	// crypto/x509 does not know names of kind otherName, which Fulcio gives; we
	// compare the names ourselves.
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, sanOID.Equal)
	if err := verifyChain(leaf, f.roots, pool(chain), at); err != nil {
		return nil, err
	}
	issuer, err := issuerOf(leaf)
	if err != nil {
		return nil, err
	}
	if issuer != f.issuer {
		return nil, fmt.Errorf("its certificate is for an identity from %.300q, not from %q", issuer, f.issuer)
	}
	return leaf.PublicKey, checkEmail(leaf, f.email)
}

// issuerOf returns who told Fulcio the identity.
func issuerOf(leaf *x509.Certificate) (string, error) {
	var old, issuer string
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(issuerOID):
			old = string(e.Value)
		case e.Id.Equal(issuerV2OID):
			rest, err := asn1.Unmarshal(e.Value, &issuer)
			if err != nil || len(rest) > 0 || issuer == "" {
				return "", errors.New("its certificate does not say who issued the identity in a form that is known")
			}
		}
	}
	switch {
	case issuer == "" && old == "":
		return "", errors.New("its certificate does not say who issued the identity")
	case issuer != "" && old != "" && issuer != old:
		return "", fmt.Errorf("its certificate names two issuers of the identity, %.300q and %.300q", old, issuer)
	case issuer == "":
		return old, nil
	}
	return issuer, nil
}

func checkEmail(leaf *x509.Certificate, email string) error {
	if !slices.Contains(leaf.EmailAddresses, email) {
		return fmt.Errorf("its certificate is for %.300q, not for %q", leaf.EmailAddresses, email)
	}
	return nil
}

// pki accepts certificates of a certificate authority of one's own, as long as
// they are valid.
type pki struct {
	roots         *x509.CertPool
	intermediates []*x509.Certificate
	email, host   string
}

func (p pki) certify(_ []*ecdsa.PublicKey, sig signature.Signature, _ []byte) (crypto.PublicKey, error) {
	leaf, chain, err := certificates(sig)
	if err != nil {
		return nil, err
	}
	if err := verifyChain(leaf, p.roots, pool(slices.Concat(p.intermediates, chain)), time.Time{}); err != nil {
		return nil, err
	}
	if p.email != "" {
		if err := checkEmail(leaf, p.email); err != nil {
			return nil, err
		}
	}
	if p.host != "" {
		if err := leaf.VerifyHostname(p.host); err != nil {
			return nil, fmt.Errorf("its certificate: %w", err)
		}
	}
	return leaf.PublicKey, nil
}

// certificates returns a signature's own certificate, and those that may lead
// from it to a root, which must be the policy's.
func certificates(sig signature.Signature) (*x509.Certificate, []*x509.Certificate, error) {
	leaf, err := parseCertificates([]byte(sig.Notes[cosignCertificate]))
	if err != nil || len(leaf) != 1 {
		return nil, nil, fmt.Errorf("it has no annotation %s with one certificate", cosignCertificate)
	}
	if sig.Notes[cosignChain] == "" {
		return leaf[0], nil, nil
	}
	chain, err := parseCertificates([]byte(sig.Notes[cosignChain]))
	if err != nil {
		return nil, nil, fmt.Errorf("its certificates: %w", err)
	}
	return leaf[0], chain, nil
}

func verifyChain(leaf *x509.Certificate, roots, between *x509.CertPool, at time.Time) error {
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	return nil
}

func pool(all []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range all {
		p.AddCert(c)
	}
	return p
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	if len(data) > maxEntry {
		return nil, fmt.Errorf("more than %d bytes of certificates", maxEntry)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block of type %.50q where a certificate was expected", block.Type)
		}
		if len(out) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return out, nil
}

// parsePublicKey reads the key of a signer: one PEM block.
func parsePublicKey(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no public key in PEM")
	}
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return nil, fmt.Errorf("a PEM block of type %.50q where a public key was expected", block.Type)
}

func publicDER(key crypto.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(key) }
