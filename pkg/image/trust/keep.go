package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/signature"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const keptVersion = 1

// maxKept bounds the signatures that are kept of one manifest.
const maxKept = 1 << 20

// kept is a manifest's signatures on disk. Nothing relies on them: they are
// verified whenever they are used, and fetched again where they are lost.
type kept struct {
	Version    int                   `json:"version"`
	Manifest   digest.Digest         `json:"manifest"`
	Signatures []signature.Signature `json:"signatures"`
}

func (g *Gate) path(manifest digest.Digest) string {
	return filepath.Join(g.dir, manifest.Algorithm().String()+"-"+manifest.Encoded()+".json")
}

// kept returns what keep has kept, or nothing.
func (g *Gate) kept(manifest digest.Digest) []signature.Signature {
	var k kept
	if manifest.Validate() != nil || statefile.Read(g.path(manifest), &k) != nil || k.Version != keptVersion || k.Manifest != manifest {
		return nil
	}
	return k.Signatures
}

// keep adds to what is kept, the newest first. Other namespaces may need the
// others.
func (g *Gate) keep(manifest digest.Digest, found []signature.Signature) error {
	all := slices.Clone(found)
	for _, old := range g.kept(manifest) {
		if !slices.ContainsFunc(all, func(s signature.Signature) bool { return reflect.DeepEqual(s, old) }) {
			all = append(all, old)
		}
	}
	size := 0
	for n, s := range all {
		if size += s.Size(); size > maxKept {
			all = all[:n]
			break
		}
	}
	if err := statefile.Write(g.path(manifest), kept{Version: keptVersion, Manifest: manifest, Signatures: all}); err != nil {
		return fmt.Errorf("keep signatures: %w", err)
	}
	return nil
}

// List returns the manifests whose signatures are kept.
func (g *Gate) List() ([]digest.Digest, error) {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil, fmt.Errorf("list signatures: %w", err)
	}
	var out []digest.Digest
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		algorithm, encoded, dash := strings.Cut(name, "-")
		if d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded); ok && dash && d.Validate() == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// Remove forgets a manifest's signatures. It is idempotent.
func (g *Gate) Remove(manifest digest.Digest) error {
	if err := os.Remove(g.path(manifest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
