package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/policy"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/signature"
)

// minPrefix is the shortest beginning of an id that stands for an image.
const minPrefix = 4

// Held is an image that is here.
type Held struct {
	ID, Manifest digest.Digest
	Names        []string // tags and digests, in full
}

// Repositories opens the repository at path of a registry as nobody.
type Repositories func(host, path string) (signature.Repository, error)

// Use judges an image that is here by the policy of a namespace, under the name
// that its user asked for. Signatures are fetched only where those that are kept
// do not do. The error is a policy.ErrRefused.
func (g *Gate) Use(ctx context.Context, h Held, asked, namespace string, open Repositories) error {
	p, err := g.Policy(namespace)
	if err != nil {
		return fmt.Errorf("use image %s: %w", h.ID, err)
	}
	if p == nil {
		return nil
	}
	for _, n := range h.names(asked) {
		if err = g.use(ctx, p, h.as(n), open); err == nil {
			return nil
		}
	}
	return fmt.Errorf("use image %s as %.300q: %w", h.ID, asked, err)
}

func (g *Gate) use(ctx context.Context, p *policy.Policy, i Image, open Repositories) error {
	g.mu.Lock()
	at, ok := g.accepted[verdict{p.Digest(), i.Manifest, i.Name}]
	g.mu.Unlock()
	if ok && time.Since(at) < verdictLife {
		return nil
	}
	err := g.judge(p, i, g.kept(i.Manifest), false)
	if err == nil || !p.Wants(i.Name).Any() || i.Name == (reference.Name{}) {
		return err
	}
	r, missing := open(i.Name.Domain, i.Name.Path)
	if missing == nil {
		missing = g.Pull(ctx, p, i, r)
	}
	if missing == nil || errors.Is(missing, policy.ErrRefused) {
		return missing
	}
	return fmt.Errorf("%w (its signatures cannot be fetched: %s)", err, missing.Error())
}

// names are those under which the image is judged: the one that was asked for, or
// all that it has where that is its id. The zero name stands for an image without
// any.
func (h Held) names(asked string) []reference.Name {
	n, err := reference.Parse(asked)
	hex := strings.TrimPrefix(asked, "sha256:")
	isID := len(hex) >= minPrefix && strings.HasPrefix(h.ID.Encoded(), hex)
	if err == nil && (!isID || slices.Contains(h.Names, n.String())) {
		return []reference.Name{n}
	}
	var all []reference.Name
	for _, name := range h.Names {
		if n, err := reference.Parse(name); err == nil {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return []reference.Name{{}}
	}
	return all
}

// as is the image under a name, with the indexes of that repository that lead to
// it.
func (h Held) as(n reference.Name) Image {
	i := Image{Name: n, Manifest: h.Manifest}
	for _, name := range h.Names {
		if d, ok := strings.CutPrefix(name, n.Repository()+"@"); ok {
			i.Indexes = append(i.Indexes, digest.Digest(d))
		}
	}
	return i
}
