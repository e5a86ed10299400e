package stats

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// measureEvery is how old an answer may become, while it is asked for.
	measureEvery = 10 * time.Second
	// atOnce bounds what a pass waits for answers about new containers, which have
	// written little.
	atOnce = 5 * time.Millisecond
	// restAfter is how long measuring rests, as a multiple of what it took: it is at
	// most two percent of a processor.
	restAfter = 50
)

// layers keep what containers have written.
type layers struct {
	source Layers

	mu      sync.Mutex
	answers map[string]*written // nil: measured, and failed
	until   time.Time           // when the patience of the running pass ends
}

// written is what a container had written at a time.
type written struct {
	bytes, inodes uint64
	at            time.Time
}

// begin and end enclose a pass.
func (l *layers) begin(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = now.Add(atOnce)
}

func (l *layers) end(seen map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.answers, func(id string, _ *written) bool { return !seen[id] })
}

// answer returns what is known of a container. What is not, is measured at once as
// far as patience goes; else it has no numbers until measure has been there.
func (l *layers) answer(ctx context.Context, id, root string) *cri.FilesystemUsage {
	l.mu.Lock()
	w, known := l.answers[id]
	until := l.until
	l.mu.Unlock()
	if !known && time.Now().Before(until) {
		ctx, cancel := context.WithDeadline(ctx, until)
		w = l.look(ctx, id)
		cancel()
	}
	usage := &cri.FilesystemUsage{Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: root}}
	if w != nil {
		usage.Timestamp, usage.UsedBytes, usage.InodesUsed = w.at.UnixNano(), value(w.bytes), value(w.inodes)
	} else {
		l.want(id)
	}
	return usage
}

// want asks measure for a container.
func (l *layers) want(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answers == nil {
		l.answers = map[string]*written{}
	}
	if _, ok := l.answers[id]; !ok {
		l.answers[id] = nil
	}
}

// look measures; nil where that failed or took too long.
func (l *layers) look(ctx context.Context, id string) *written {
	bytes, inodes, err := l.source.Usage(ctx, id)
	if err != nil {
		return nil
	}
	w := &written{bytes: bytes, inodes: inodes, at: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answers == nil {
		l.answers = map[string]*written{}
	}
	l.answers[id] = w
	return w
}

// measure looks at all that is asked for, slowly.
func (l *layers) measure(ctx context.Context) {
	l.mu.Lock()
	ids := slices.Collect(maps.Keys(l.answers))
	l.mu.Unlock()
	for _, id := range ids {
		began := time.Now()
		l.look(ctx, id)
		select {
		case <-ctx.Done():
			return
		case <-time.After(restAfter * time.Since(began)):
		}
	}
}
