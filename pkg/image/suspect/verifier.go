package suspect

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/keylock"
)

// Store is content that can be verified.
type Store interface {
	// Verify returns an error of kind Invalid for what is damaged, and of kind
	// NotFound for what is absent.
	Verify(ctx context.Context, d digest.Digest) error
	// Trust says that a suspect has been verified, or is no more.
	Trust(d digest.Digest) error
}

// Verifier verifies each suspect once: when somebody needs it, or when Run comes
// to it. The set of suspects only shrinks.
type Verifier struct {
	store Store
	// quarantine takes what is damaged away.
	quarantine func(ctx context.Context, d digest.Digest, damage error) error
	locks      keylock.Locks // by digest, held while it is verified

	mu       sync.Mutex
	suspects map[digest.Digest]bool
}

// NewVerifier returns a Verifier of the suspects.
func NewVerifier(s Store, suspects []digest.Digest, quarantine func(ctx context.Context, d digest.Digest, damage error) error) *Verifier {
	v := &Verifier{store: s, quarantine: quarantine, suspects: map[digest.Digest]bool{}}
	for _, d := range suspects {
		v.suspects[d] = true
	}
	return v
}

func (v *Verifier) suspect(d digest.Digest) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.suspects[d]
}

// Settle returns once none of the digests is a suspect. Where one was damaged, and
// is absent now, the error is of kind NotFound.
func (v *Verifier) Settle(ctx context.Context, digests ...digest.Digest) error {
	for _, d := range digests {
		if !v.suspect(d) {
			continue
		}
		if _, err := v.settle(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// settle reports whether d was damaged.
func (v *Verifier) settle(ctx context.Context, d digest.Digest) (damaged bool, err error) {
	unlock, err := v.locks.Lock(ctx, d.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	if !v.suspect(d) { // somebody else has looked
		return false, nil
	}
	err = v.store.Verify(ctx, d)
	damaged = errors.Is(err, errs.Invalid)
	switch {
	case damaged:
		if moved := v.quarantine(ctx, d, err); moved != nil {
			return true, errors.Join(err, moved)
		}
		err = &absent{err}
	case errors.Is(err, errs.NotFound):
		err = nil
	case err != nil:
		return false, err
	}
	v.mu.Lock()
	delete(v.suspects, d)
	v.mu.Unlock()
	return damaged, errors.Join(err, v.store.Trust(d))
}

// absent is what was damaged and is absent now: of kind NotFound alone.
type absent struct{ damage error }

func (a *absent) Error() string { return a.damage.Error() + ": pull the image again" }
func (a *absent) Unwrap() error { return errs.NotFound }

// Run verifies all suspects, one by one, and returns when there are none or ctx
// has ended.
func (v *Verifier) Run(ctx context.Context) {
	v.mu.Lock()
	todo := slices.Sorted(maps.Keys(v.suspects))
	v.mu.Unlock()
	if len(todo) == 0 {
		return
	}
	log := klog.FromContext(ctx)
	log.Info("The machine has not been stopped cleanly: verifying what was written before", "layers", len(todo))
	began, bad := time.Now(), 0
	for _, d := range todo {
		damaged, err := v.settle(ctx, d)
		if ctx.Err() != nil {
			return
		}
		if damaged {
			bad++
		} else if err != nil {
			log.Error(err, "Could not verify what was written before the machine stopped", "layer", d)
		}
	}
	log.Info("Verified what was written before the machine stopped", "layers", len(todo), "damaged", bad, "took", time.Since(began))
}
