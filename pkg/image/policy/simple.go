package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/berth-run/berth/pkg/image/signature"
)

// signedBy wants an OpenPGP signature by one of the keys.
type signedBy struct {
	keys openpgp.EntityList
	id   identity
}

func (r signedBy) wants() signature.Kinds { return signature.Kinds{Simple: true} }

func (r signedBy) check(s Subject, all []signature.Signature) error {
	of := func(sig signature.Signature) bool { return sig.Simple != nil }
	return anyOf(all, "simple", of, func(sig signature.Signature) error {
		data, err := r.open(sig.Simple)
		if err != nil {
			return err
		}
		return checkPayload(data, simpleType, r.id, s)
	})
}

// open verifies an OpenPGP message and returns what is signed in it.
func (r signedBy) open(message []byte) (data []byte, err error) {
	defer func() {
		// go-crypto 1.4.1 dereferences the issuer of a signature that names none.
		if p := recover(); p != nil {
			data, err = nil, fmt.Errorf("it is no OpenPGP message that can be read: %v", p)
		}
	}()
	limit := int64(maxPayload)
	config := &packet.Config{MaxDecompressedMessageSize: &limit}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), r.keys, nil, config)
	if err != nil {
		return nil, fmt.Errorf("it is no OpenPGP message: %w", err)
	}
	if !md.IsSigned {
		return nil, errors.New("the OpenPGP message is not signed")
	}
	data, err = io.ReadAll(io.LimitReader(md.UnverifiedBody, maxPayload+1)) // the signature is verified at the end
	switch {
	case err != nil:
		return nil, fmt.Errorf("it is no whole OpenPGP message: %w", err)
	case len(data) > maxPayload:
		return nil, fmt.Errorf("it signs more than %d bytes", maxPayload)
	case md.SignedBy == nil:
		return nil, fmt.Errorf("it is by the key %016X, which is not among the policy's", md.SignedByKeyId)
	case md.SignatureError != nil:
		return nil, fmt.Errorf("it is wrong: %w", md.SignatureError)
	case md.Signature == nil:
		return nil, errors.New("the OpenPGP message ends without its signature")
	}
	return data, nil
}

// parseKeyring reads public keys, armored or not.
func parseKeyring(data []byte) (openpgp.EntityList, error) {
	keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
	if err != nil {
		armored, asArmored := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
		if asArmored != nil {
			return nil, fmt.Errorf("no OpenPGP keys: %w", err)
		}
		keys = armored
	}
	if len(keys) == 0 {
		return nil, errors.New("no OpenPGP keys")
	}
	return keys, nil
}
