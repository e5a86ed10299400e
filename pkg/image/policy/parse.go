package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
)

// maxPolicy bounds a policy and each key that it names.
const maxPolicy = 4 << 20

// Parse reads a policy. file is what it is called in errors, and read returns the
// content of the key files that it names: Parse itself touches nothing.
func Parse(file string, data []byte, read func(path string) ([]byte, error)) (*Policy, error) {
	p := parser{read: read, sum: digest.Canonical.Digester()}
	out, err := p.policy(data)
	if err != nil {
		return nil, fmt.Errorf("signature policy %s: %w", file, err)
	}
	_, _ = p.sum.Hash().Write(data) // never fails
	out.file, out.digest = file, p.sum.Digest()
	return out, nil
}

type parser struct {
	read func(path string) ([]byte, error)
	sum  digest.Digester
}

func (p *parser) policy(data []byte) (*Policy, error) {
	if len(data) > maxPolicy {
		return nil, fmt.Errorf("more than %d bytes: %w", maxPolicy, errs.Invalid)
	}
	n, err := parseTree(data)
	if err != nil {
		return nil, err
	}
	out := &Policy{docker: map[string][]requirement{}}
	f := of(n)
	byDefault, transports := f.must("default"), f.get("transports")
	if err := f.end(); err != nil {
		return nil, err
	}
	if out.byDefault, err = p.requirements(byDefault); err != nil || transports == nil {
		return out, err
	}
	if err := of(transports).err; err != nil {
		return nil, err
	}
	for _, transport := range transports.keys {
		scopes := transports.fields[transport]
		if err := of(scopes).err; err != nil {
			return nil, err
		}
		for _, scope := range scopes.keys {
			requirements, err := p.requirements(scopes.fields[scope])
			if err != nil {
				return nil, err
			}
			if transport == "docker" { // images come from nowhere else; the rest is read to find mistakes
				out.docker[scope] = requirements
			}
		}
	}
	return out, nil
}

func (p *parser) requirements(n *node) ([]requirement, error) {
	items, ok := n.value.([]*node)
	if !ok || len(items) == 0 {
		return nil, n.fault("it is %s, a list with at least one requirement is wanted", n.kind())
	}
	var out []requirement
	for _, item := range items {
		r, err := p.requirement(item)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (p *parser) requirement(n *node) (requirement, error) {
	f := of(n)
	var r requirement
	switch kind := f.string(f.must("type")); kind {
	case "insecureAcceptAnything":
		r = acceptAnything{}
	case "reject":
		r = reject{}
	case "signedBy":
		r = p.signedBy(f)
	case "sigstoreSigned":
		r = p.sigstoreSigned(f)
	case "signedBaseLayer":
		if base := f.must("baseLayerIdentity"); f.err == nil {
			_, err := parseIdentity(base)
			f.fail(err)
		}
		r = impossible{"signedBaseLayer is not supported"}
	default:
		f.fail(n.fault("requirement of type %.100q is not known", kind))
	}
	return r, f.end()
}

func (p *parser) signedBy(f *fields) requirement {
	keyType := f.string(f.must("keyType"))
	if !slices.Contains([]string{"GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"}, keyType) {
		f.fail(f.n.fault("keyType %.100q is not known", keyType))
	}
	data, cannot := p.exactlyOne(f, "keyPath", "keyPaths", "keyData", "")
	r := signedBy{id: p.identity(f)}
	if keyType != "GPGKeys" {
		return impossible{fmt.Sprintf("keyType %s is not supported", keyType)}
	}
	for _, d := range data {
		keys, err := parseKeyring(d)
		cannot = errors.Join(cannot, err)
		r.keys = append(r.keys, keys...)
	}
	if cannot != nil {
		return impossible{fmt.Sprintf("the keys of %s: %v", f.n.place, cannot)}
	}
	return r
}

func (p *parser) identity(f *fields) identity {
	id, err := parseIdentity(f.get("signedIdentity"))
	if err != nil {
		f.fail(err)
	}
	return id
}

func (p *parser) sigstoreSigned(f *fields) requirement {
	r := sigstoreSigned{id: p.identity(f)}
	rekor, cannot := p.source(f, "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
	fulcioNode, pkiNode := f.get("fulcio"), f.get("pki")
	keys, ways := [][]byte(nil), 0
	for _, key := range []string{"keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"} {
		if f.n.fields[key] != nil {
			ways++
		}
	}
	if ways != 1 {
		f.fail(f.n.fault("exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki is wanted"))
	}
	var err error
	keys, err = p.source(f, "keyPath", "keyPaths", "keyData", "keyDatas")
	cannot = errors.Join(cannot, err)
	switch {
	case fulcioNode != nil:
		if !given(f, "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas") {
			f.fail(f.n.fault("fulcio needs a rekorPublicKey…"))
		}
		r.authority, err = p.fulcio(f, fulcioNode)
	case pkiNode != nil:
		if given(f, "rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas") {
			f.fail(f.n.fault("pki and a rekorPublicKey… do not go together"))
		}
		r.authority, err = p.pki(f, pkiNode)
	default:
		r.keys, err = publicKeys(keys)
	}
	logs, bad := publicKeys(rekor)
	for _, key := range logs {
		log, ok := key.(*ecdsa.PublicKey)
		if !ok {
			bad = errors.Join(bad, errors.New("a key of Rekor is not ECDSA"))
			continue
		}
		r.rekor = append(r.rekor, log)
	}
	if cannot = errors.Join(cannot, err, bad); cannot != nil {
		return impossible{fmt.Sprintf("the keys of %s: %v", f.n.place, cannot)}
	}
	return r
}

func given(f *fields, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return f.n.fields[key] != nil })
}

// fulcio and pki return with the error what keeps their keys from being used;
// what is wrong with the policy itself is in outer.
func (p *parser) fulcio(outer *fields, n *node) (authority, error) {
	f := of(n)
	data, cannot := p.exactlyOne(f, "caPath", "", "caData", "")
	out := fulcio{issuer: f.string(f.must("oidcIssuer")), email: f.string(f.must("subjectEmail"))}
	if err := f.end(); err != nil {
		outer.fail(err)
		return nil, nil
	}
	if cannot != nil {
		return nil, cannot
	}
	roots, err := parseCertificates(data[0])
	out.roots = pool(roots)
	return out, err
}

func (p *parser) pki(outer *fields, n *node) (authority, error) {
	f := of(n)
	data, cannot := p.exactlyOne(f, "caRootsPath", "", "caRootsData", "")
	between, cannotBetween := p.source(f, "caIntermediatesPath", "", "caIntermediatesData", "")
	out := pki{email: f.text("subjectEmail"), host: f.text("subjectHostname")}
	if out.email == "" && out.host == "" {
		f.fail(n.fault("subjectEmail or subjectHostname is wanted"))
	}
	if err := f.end(); err != nil {
		outer.fail(err)
		return nil, nil
	}
	if err := errors.Join(cannot, cannotBetween); err != nil {
		return nil, err
	}
	roots, err := parseCertificates(data[0])
	out.roots = pool(roots)
	for _, d := range between {
		more, bad := parseCertificates(d)
		err = errors.Join(err, bad)
		out.intermediates = append(out.intermediates, more...)
	}
	return out, err
}

func publicKeys(data [][]byte) ([]crypto.PublicKey, error) {
	var out []crypto.PublicKey
	var failed []error
	for _, d := range data {
		key, err := parsePublicKey(d)
		switch key.(type) {
		case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
			out = append(out, key)
		default:
			failed = append(failed, cmpErr(err, errors.New("a public key of a kind that is not supported")))
		}
	}
	return out, errors.Join(failed...)
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// exactlyOne is source where one of the keys has to be there.
func (p *parser) exactlyOne(f *fields, keys ...string) ([][]byte, error) {
	names := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return k == "" })
	if !given(f, names...) {
		f.fail(f.n.fault("one of %q is wanted", names))
	}
	return p.source(f, keys[0], keys[1], keys[2], keys[3])
}

// source returns what at most one of four keys stands for: a path, a list of
// paths, data in base64, a list of such. An empty name stands for a key that is
// not known here. The error is why a file cannot be read.
func (p *parser) source(f *fields, path, paths, data, datas string) ([][]byte, error) {
	text := func(key string) []string {
		if key == "" {
			return nil
		}
		return one(f.text(key))
	}
	list := func(key string) []string {
		if key == "" {
			return nil
		}
		return f.texts(key)
	}
	files := append(text(path), list(paths)...)
	out := append(f.decoded(data, text(data)), f.decoded(datas, list(datas))...)
	there := 0
	for _, key := range []string{path, paths, data, datas} {
		if key != "" && f.n.fields[key] != nil {
			there++
		}
	}
	if there > 1 {
		f.fail(f.n.fault("only one of %s…, %s… is wanted", path, data))
	}
	if f.err != nil {
		return nil, nil
	}
	var failed []error
	for _, file := range files {
		if !filepath.IsAbs(file) {
			f.fail(f.n.fault("%.300q is not an absolute path", file))
			continue
		}
		content, err := p.read(file)
		if err != nil {
			failed = append(failed, err)
		}
		fmt.Fprintf(p.sum.Hash(), "%q %v %d\n", file, err == nil, len(content))
		_, _ = p.sum.Hash().Write(content) // never fails
		out = append(out, content)
	}
	return out, errors.Join(failed...)
}
