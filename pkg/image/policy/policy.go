// Package policy decides by a policy.json, as containers-policy.json(5) tells,
// whether an image may be used: it reads the policy, chooses the requirements
// that hold for a name, and verifies signatures against them.
//
// It fetches nothing (package signature does) and keeps nothing but policies
// read before (Files). Policies are read strictly: an unknown key, one that is
// there twice or a value of another type is an error that names file, line and
// place. A requirement that cannot be judged is never met: what Berth does not
// know how to verify (keyType other than GPGKeys, signedBaseLayer), and keys that
// cannot be read, refuse the images that they are for, and only those.
//
// Signatures are attackers' data until their cryptographic signature has been
// verified, and their payload says what the signer wanted, not what is so: it
// has to name the manifest's digest and, by the requirement's signedIdentity,
// the image's name.
//
// An image that is chosen from an index may be signed itself or by a signature of
// the index, which names the image's manifest by digest.
package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/signature"
)

// ErrRefused says that the policy does not let an image in. It comes with kind
// Denied.
var ErrRefused = errors.New("the signature policy refuses the image")

// Policy is a policy.json with the keys that it names. It is not changed any
// more.
type Policy struct {
	file      string
	digest    digest.Digest
	byDefault []requirement
	docker    map[string][]requirement
}

// Subject is an image that is judged.
type Subject struct {
	// Name is how it was asked for. The zero value stands for an image without a
	// name, which only the policy's default speaks about.
	Name reference.Name
	// Digests are those of its manifest, and of indexes that lead to it.
	Digests []digest.Digest
}

// requirement is one entry of the policy.
type requirement interface {
	// wants tells which signatures check looks at.
	wants() signature.Kinds
	// check returns why the image is not accepted.
	check(s Subject, all []signature.Signature) error
}

// Digest tells policies apart, with the content of their keys. It is empty for a
// nil policy, which accepts everything.
func (p *Policy) Digest() digest.Digest {
	if p == nil {
		return ""
	}
	return p.digest
}

// Wants tells which signatures Check needs to see for an image of that name.
func (p *Policy) Wants(n reference.Name) signature.Kinds {
	var k signature.Kinds
	for _, r := range p.requirements(n) {
		w := r.wants()
		k.Simple, k.Sigstore = k.Simple || w.Simple, k.Sigstore || w.Sigstore
	}
	return k
}

// Check returns an ErrRefused that says why, unless each requirement for the
// image is met.
func (p *Policy) Check(s Subject, all []signature.Signature) error {
	for _, r := range p.requirements(s.Name) {
		if err := r.check(s, all); err != nil {
			return p.Refuse(err)
		}
	}
	return nil
}

// Foregone returns the ErrRefused that Check would give for every image of that
// name, if it needs no signatures to know.
func (p *Policy) Foregone(n reference.Name) error {
	if p.Wants(n).Any() {
		return nil
	}
	return p.Check(Subject{Name: n}, nil)
}

// Refuse makes an ErrRefused of what kept the image from being judged.
func (p *Policy) Refuse(why error) error {
	return fmt.Errorf("%w (%s): %s: %w", ErrRefused, p.file, why.Error(), errs.Denied)
}

// requirements are those of the narrowest scope that covers the name.
func (p *Policy) requirements(n reference.Name) []requirement {
	if p == nil {
		return nil
	}
	if n == (reference.Name{}) {
		return p.byDefault
	}
	for _, scope := range signature.Scopes(n) {
		if r, ok := p.docker[scope]; ok {
			return r
		}
	}
	if r, ok := p.docker[""]; ok {
		return r
	}
	return p.byDefault
}

// acceptAnything is met by every image.
type acceptAnything struct{}

func (acceptAnything) wants() signature.Kinds                     { return signature.Kinds{} }
func (acceptAnything) check(Subject, []signature.Signature) error { return nil }

// reject is met by none.
type reject struct{}

func (reject) wants() signature.Kinds { return signature.Kinds{} }
func (reject) check(s Subject, _ []signature.Signature) error {
	return errors.New("no image is accepted here")
}

// impossible is a requirement that nobody can meet, and why.
type impossible struct{ why string }

func (impossible) wants() signature.Kinds                       { return signature.Kinds{} }
func (i impossible) check(Subject, []signature.Signature) error { return errors.New(i.why) }

// anyOf returns nil if one signature of the kind is accepted, else why none is.
func anyOf(all []signature.Signature, kind string, of func(signature.Signature) bool, accept func(signature.Signature) error) error {
	var why []string
	for _, sig := range all {
		if !of(sig) {
			continue
		}
		err := accept(sig)
		if err == nil {
			return nil
		}
		why = append(why, fmt.Sprintf("%.500s", err))
	}
	switch len(why) {
	case 0:
		return fmt.Errorf("a %s signature is required and there is none", kind)
	case 1:
		return fmt.Errorf("its %s signature is not accepted: %s", kind, why[0])
	}
	const shown = 5
	more := ""
	if len(why) > shown {
		more, why = fmt.Sprintf("; and %d more", len(why)-shown), why[:shown]
	}
	return fmt.Errorf("none of its %s signatures is accepted: %s%s", kind, strings.Join(why, "; "), more)
}
