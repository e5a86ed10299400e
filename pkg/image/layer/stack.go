package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/image/treesum"
	"github.com/berth-run/berth/pkg/internal/room"
)

// Stack returns what to mount for an image's layers, the lowest first: one EROFS
// image, or the layers themselves, and above each that leaves something open a
// stacking layer that settles it for the layers below. All layers must be present.
// keep is told of each image or stacking layer before it is looked for or made. The
// error is of kind Invalid where the layers contradict each other, and of kind
// Unsupported where the kernel does not stack as many directories.
func (s *Store) Stack(ctx context.Context, diffIDs []digest.Digest, keep func(...digest.Digest)) ([]digest.Digest, error) {
	if s.erofs && len(diffIDs) > 0 && !slices.ContainsFunc(diffIDs, func(d digest.Digest) bool { return !s.has(d, tarRecord) }) {
		id, err := s.compose(ctx, diffIDs, keep)
		if err == nil || !errors.Is(err, errs.Unsupported) {
			return []digest.Digest{id}, err
		}
	}
	return s.Trees(ctx, diffIDs, keep)
}

// Trees is Stack for who takes directories alone. Layers that are here as tar streams
// are unpacked, too, and stay so.
func (s *Store) Trees(ctx context.Context, diffIDs []digest.Digest, keep func(...digest.Digest)) ([]digest.Digest, error) {
	if err := s.deriveAll(ctx, diffIDs); err != nil {
		return nil, err
	}
	var stack []digest.Digest
	for n, d := range diffIDs {
		info, err := s.read(d, treeRecord)
		if err != nil {
			return nil, err
		}
		below := stack
		whole := append(stack[:len(stack):len(stack)], d)
		if len(whole) > overlay.MaxStack {
			return nil, tooMany(len(whole))
		}
		if stack = highest(whole); directory.Opaque(s.Tree(d)) { // overlay does not look for that mark on a layer's root
			stack = []digest.Digest{d}
		}
		if len(info.Links)+len(info.Whiteouts) == 0 && (n == 0 || len(info.Implied) == 0) {
			continue
		}
		id := stackID(whole)
		keep(id)
		made, err := s.settle(ctx, id, below, info)
		if err != nil {
			return nil, fmt.Errorf("stack layer %s: %w", d, err)
		}
		if made {
			stack = append(stack, id)
		}
	}
	if len(stack) > overlay.MaxStack {
		return nil, tooMany(len(stack))
	}
	return stack, nil
}

func tooMany(n int) error {
	return fmt.Errorf("%d layers with those that settle them, of which the kernel stacks %d: %w", n, overlay.MaxStack, errs.Unsupported)
}

// highest returns the stack without the lower ones of equal layers: overlay takes
// no directory twice, and the highest hides and adds all that the others do. What
// was settled above those stays, and so does what it shows.
func highest(stack []digest.Digest) []digest.Digest {
	var kept []digest.Digest
	for n, d := range stack {
		if !slices.Contains(stack[n+1:], d) {
			kept = append(kept, d)
		}
	}
	return kept
}

// stackID names the stacking layer above a stack.
func stackID(stack []digest.Digest) digest.Digest {
	b := strings.Builder{}
	b.WriteString("berth stacking layer 1\n")
	for _, d := range stack {
		b.WriteString(d.String() + "\n")
	}
	return digest.FromString(b.String())
}

// settle makes the stacking layer id for a layer above those below. It reports
// false where there is nothing to settle.
func (s *Store) settle(ctx context.Context, id digest.Digest, below []digest.Digest, info Info) (bool, error) {
	unlock, err := s.locks.Lock(ctx, name(id))
	if err != nil {
		return false, err
	}
	defer unlock()
	if s.Has(id) {
		return true, nil
	}
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	stack := directory.Stack{Own: s.Tree(info.DiffID), Made: info.Made}
	for _, d := range below {
		stack.Below = append(stack.Below, s.Tree(d))
	}
	made, err := stack.Settle(filepath.Join(temp, treeDir), temp)
	if err != nil || made == 0 {
		return false, room.Explain(err, temp, minRoom)
	}
	sum, err := treesum.Of(ctx, filepath.Join(temp, treeDir))
	if err == nil {
		err = s.commit(temp, Info{Version: infoVersion, DiffID: id, Made: directory.Made{Inodes: made, Total: &sum}})
	}
	return true, room.Explain(err, temp, minRoom)
}
