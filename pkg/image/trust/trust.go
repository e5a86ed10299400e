// Package trust asks the signature policy whether an image may be pulled and
// used: it brings together the policy that holds for a namespace (package policy),
// the image's signatures (package signature), and what was found out before.
//
// The signatures of an image that was pulled are kept beside it, so that its use
// is judged again without a registry or credentials:
//
//	<dir>/<algorithm>-<digest of the manifest>.json
//
// An image that has been accepted by a policy is remembered for an hour under the
// policy's digest, keys included, and is not judged again until one of them changes.
// mu guards that memory, and nothing slow runs under it.
package trust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/policy"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/signature"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// defaultPolicy is the policy that a host shares with other programs.
const defaultPolicy = "/etc/containers/policy.json"

// verdictLife is how long an acceptance is believed: keys and certificates expire.
const verdictLife = time.Hour

// maxVerdicts bounds what is remembered; it begins anew then.
const maxVerdicts = 10_000

// Options say where policies are. The zero value works.
type Options struct {
	// Policy is a file that has to be there; empty: /etc/containers/policy.json,
	// and where that is not there everything is accepted.
	Policy string
	// Namespaces is a directory with policies for single namespaces, as
	// NAMESPACE.json; they hold instead of Policy. Empty: none.
	Namespaces string
	// RegistriesD are directories that say where signatures are.
	RegistriesD []string
}

// Gate judges images. Its methods are safe for concurrent use.
type Gate struct {
	options Options
	dir     string
	finder  *signature.Finder
	files   policy.Files

	mu       sync.Mutex
	accepted map[verdict]time.Time // when
}

// verdict is that a policy accepts a manifest under a name.
type verdict struct {
	policy, manifest digest.Digest
	name             reference.Name
}

// Image is what is judged.
type Image struct {
	// Name is the one that was asked for; zero for an image that has none.
	Name     reference.Name
	Manifest digest.Digest
	// Indexes lead to the manifest.
	Indexes []digest.Digest
}

func (i Image) digests() []digest.Digest {
	out := []digest.Digest{i.Manifest}
	for _, d := range i.Indexes {
		if d != i.Manifest {
			out = append(out, d)
		}
	}
	return out
}

// Open returns a gate that keeps signatures in dir.
func Open(o Options, dir string) (*Gate, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make signature store: %w", err)
	}
	if err := statefile.Sweep(dir); err != nil {
		return nil, fmt.Errorf("sweep signature store: %w", err)
	}
	return &Gate{options: o, dir: dir, finder: signature.NewFinder(o.RegistriesD), accepted: map[verdict]time.Time{}}, nil
}

// Close closes idle connections.
func (g *Gate) Close() { g.finder.Close() }

// Policy returns the policy of a namespace, or nil where everything is accepted.
// Where it cannot be read, nothing is: the error is a policy.ErrRefused.
func (g *Gate) Policy(namespace string) (*policy.Policy, error) {
	p, err := g.load(namespace)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", policy.ErrRefused, err.Error(), errs.Denied)
	}
	return p, nil
}

func (g *Gate) load(namespace string) (*policy.Policy, error) {
	file := namespace + ".json"
	if g.options.Namespaces != "" && namespace != "" && filepath.IsLocal(file) && !strings.Contains(file, "/") {
		if p, err := g.files.Load(filepath.Join(g.options.Namespaces, file)); p != nil || err != nil {
			return p, err
		}
	}
	if g.options.Policy == "" {
		return g.files.Load(defaultPolicy)
	}
	p, err := g.files.Load(g.options.Policy)
	if p == nil && err == nil {
		err = fmt.Errorf("signature policy %s is not there", g.options.Policy)
	}
	return p, err
}

// Pull judges an image that is about to be pulled by p, with signatures from its
// repository, and keeps these. The error is a policy.ErrRefused, or of kind
// Unavailable where signatures cannot be had now. The caller holds the manifest's
// digest against Remove.
func (g *Gate) Pull(ctx context.Context, p *policy.Policy, i Image, r signature.Repository) error {
	kinds := p.Wants(i.Name)
	if !kinds.Any() {
		return p.Check(policy.Subject{Name: i.Name, Digests: i.digests()}, nil)
	}
	found, err := g.finder.Find(ctx, i.Name, i.digests(), kinds, r)
	if err != nil {
		if ctx.Err() != nil || errs.Of(err) == errs.Unavailable {
			return err
		}
		return p.Refuse(err)
	}
	return g.judge(p, i, found, true)
}

// judge remembers what is accepted.
func (g *Gate) judge(p *policy.Policy, i Image, found []signature.Signature, keep bool) error {
	if err := p.Check(policy.Subject{Name: i.Name, Digests: i.digests()}, found); err != nil {
		return err
	}
	if keep {
		if err := g.keep(i.Manifest, found); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.accepted) >= maxVerdicts {
		clear(g.accepted)
	}
	g.accepted[verdict{p.Digest(), i.Manifest, i.Name}] = time.Now()
	return nil
}
