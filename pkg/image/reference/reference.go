// Package reference reads the names of images as users write them.
package reference

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
)

const (
	defaultDomain   = "docker.io"
	legacyDomain    = "index.docker.io"
	officialPrefix  = "library/"
	defaultTag      = "latest"
	maxReferenceLen = 1024
	maxNameLen      = 255
)

var (
	domainRE = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$`)
	pathRE   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE    = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)
	hexRE    = regexp.MustCompile(`^[a-f0-9]+$`)
)

// Name is a reference taken apart. It has a tag, a digest or both.
type Name struct {
	Domain string // docker.io
	Path   string // library/busybox
	Tag    string
	Digest digest.Digest
}

// Parse reads a reference as users write it: without a registry it is
// docker.io's, without a namespace there it is library's, and without tag or
// digest it means :latest. The error is of kind Invalid.
func Parse(s string) (Name, error) {
	r, err := split(s)
	if err != nil {
		return Name{}, fmt.Errorf("reference %.300q: %w: %w", s, err, errs.Invalid)
	}
	return r, nil
}

func split(s string) (Name, error) {
	var r Name
	if s == "" || len(s) > maxReferenceLen {
		return r, fmt.Errorf("%d characters", len(s))
	}
	name, d, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		r.Digest = digest.Digest(d)
		if err := blob.Validate(r.Digest); err != nil {
			return r, err
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		r.Tag, name = name[i+1:], name[:i]
		if !tagRE.MatchString(r.Tag) {
			return r, fmt.Errorf("tag %q is not valid", r.Tag)
		}
	}
	r.Domain, r.Path = splitDomain(name)
	switch {
	case !domainRE.MatchString(r.Domain):
		return r, fmt.Errorf("registry %q is not valid", r.Domain)
	case strings.ToLower(r.Path) != r.Path:
		return r, fmt.Errorf("repository %q must be lower case", r.Path)
	case !pathRE.MatchString(r.Path):
		return r, fmt.Errorf("repository %q is not valid", r.Path)
	case len(r.Domain)+1+len(r.Path) > maxNameLen:
		return r, fmt.Errorf("name is longer than %d characters", maxNameLen)
	}
	if r.Tag == "" && r.Digest == "" {
		if len(s) == 64 && hexRE.MatchString(s) {
			return r, errors.New("an image id is not a name")
		}
		r.Tag = defaultTag
	}
	return r, nil
}

// Short reports whether a reference names no registry, so that configuration may
// say which one is meant.
func Short(s string) bool {
	first, _, ok := strings.Cut(s, "/")
	return !ok || !isDomain(first)
}

func isDomain(first string) bool {
	return strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first
}

// splitDomain tells a registry from the first part of a path, as Docker does: by
// a dot, a colon, a capital or "localhost".
func splitDomain(name string) (domain, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !isDomain(first) {
		domain, path = defaultDomain, name
	} else {
		domain, path = first, rest
	}
	if domain == legacyDomain {
		domain = defaultDomain
	}
	if domain == defaultDomain && !strings.Contains(path, "/") {
		path = officialPrefix + path
	}
	return domain, path
}

// Repository is the name without tag and digest.
func (r Name) Repository() string { return r.Domain + "/" + r.Path }

// Reference is what a registry is asked for: the digest, or the tag.
func (r Name) Reference() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// String is the whole name; a digest makes the tag superfluous.
func (r Name) String() string {
	if r.Digest != "" {
		return r.Repository() + "@" + r.Digest.String()
	}
	return r.Repository() + ":" + r.Tag
}

// Normalize returns the full form of a reference as users write it: busybox
// becomes docker.io/library/busybox:latest. The error is of kind Invalid.
func Normalize(s string) (string, error) {
	r, err := Parse(s)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}
