package policy

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/reference"
)

// identity decides whether the name that a signature is for is good enough for
// the image's own.
type identity interface {
	matches(image, signed named) bool
}

// named is a reference as it was written: without a tag that nobody wrote.
type named struct {
	repository string
	tag        string
	digest     digest.Digest
}

// parseNamed reads a name in full or in short form.
func parseNamed(s string) (named, error) {
	r, err := reference.Parse(s)
	if err != nil {
		return named{}, err
	}
	n := named{r.Repository(), r.Tag, r.Digest}
	before, _, _ := strings.Cut(s, "@")
	if strings.LastIndexByte(before, ':') <= strings.LastIndexByte(before, '/') {
		n.tag = "" // the default
	}
	return n, nil
}

// asNamed is the image's own name: a digest makes its tag superfluous.
func asNamed(r reference.Name) named {
	if r.Digest != "" {
		return named{repository: r.Repository(), digest: r.Digest}
	}
	return named{repository: r.Repository(), tag: r.Tag}
}

// bare reports whether there is neither tag nor digest.
func (n named) bare() bool { return n.tag == "" && n.digest == "" }

func (n named) equals(other named) bool { return n == other && !n.bare() }

type matchExact struct{}

func (matchExact) matches(image, signed named) bool { return signed.equals(image) }

// matchRepoDigestOrExact also accepts an image that was asked for by digest from
// the same repository: the signature is for this digest, see checkPayload.
type matchRepoDigestOrExact struct{}

func (matchRepoDigestOrExact) matches(image, signed named) bool {
	if image.tag == "" && image.digest != "" {
		return !signed.bare() && signed.repository == image.repository
	}
	return signed.equals(image)
}

type matchRepository struct{}

func (matchRepository) matches(image, signed named) bool {
	return signed.repository == image.repository
}

// exactReference and exactRepository say themselves what must be signed.
type exactReference struct{ wanted named }

func (e exactReference) matches(_, signed named) bool { return signed.equals(e.wanted) }

type exactRepository struct{ repository string }

func (e exactRepository) matches(_, signed named) bool { return signed.repository == e.repository }

// remapIdentity is matchRepoDigestOrExact for an image that comes from a mirror:
// below prefix its name is taken to begin with signedPrefix.
type remapIdentity struct{ prefix, signedPrefix string }

func (r remapIdentity) matches(image, signed named) bool {
	if rest, ok := strings.CutPrefix(image.repository, r.prefix); ok && (rest == "" || rest[0] == '/') {
		image.repository = r.signedPrefix + rest
	}
	return matchRepoDigestOrExact{}.matches(image, signed)
}

// parseIdentity reads a signedIdentity; nil stands for the default.
func parseIdentity(n *node) (identity, error) {
	if n == nil {
		return matchRepoDigestOrExact{}, nil
	}
	f := of(n)
	var id identity
	switch t := f.string(f.must("type")); t {
	case "matchExact":
		id = matchExact{}
	case "matchRepoDigestOrExact":
		id = matchRepoDigestOrExact{}
	case "matchRepository":
		id = matchRepository{}
	case "exactReference":
		wanted := f.named("dockerReference")
		if wanted.bare() {
			f.fail(n.fault("dockerReference needs a tag or a digest"))
		}
		id = exactReference{wanted}
	case "exactRepository":
		wanted := f.named("dockerRepository")
		if !wanted.bare() {
			f.fail(n.fault("dockerRepository must have neither tag nor digest"))
		}
		id = exactRepository{wanted.repository}
	case "remapIdentity":
		id = remapIdentity{f.prefix("prefix"), f.prefix("signedPrefix")}
	default:
		f.fail(n.fault("signedIdentity of type %.100q is not known", t))
	}
	return id, f.end()
}

func (f *fields) named(key string) named {
	n := f.must(key)
	s := f.string(n)
	if f.err != nil {
		return named{}
	}
	out, err := parseNamed(s)
	if err != nil {
		f.fail(n.fault("%v", err))
	}
	return out
}

// prefix reads a registry or the beginning of a repository's name, up to where a
// part of it ends.
func (f *fields) prefix(key string) string {
	n := f.must(key)
	s := f.string(n)
	if f.err != nil {
		return ""
	}
	if r, err := reference.Parse(s + "/x"); err != nil || r.Repository() != s+"/x" {
		f.fail(n.fault("%.300q is no registry, and no full name of a namespace or repository", s))
	}
	return s
}

// checkIdentity says what is wrong with the name that a signature is for.
func checkIdentity(id identity, s Subject, signed string) error {
	n, err := parseNamed(signed)
	if err != nil {
		return fmt.Errorf("it is for %.300q, which is no name", signed)
	}
	if s.Name == (reference.Name{}) {
		return fmt.Errorf("it is for %.300q, and this image has no name", signed)
	}
	if !id.matches(asNamed(s.Name), n) {
		return fmt.Errorf("it is for %.300q, not for %s", signed, s.Name)
	}
	return nil
}
