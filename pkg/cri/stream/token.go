package stream

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// Verb is the kind of a session.
type Verb string

// The verbs, as they are in URLs.
const (
	Exec        Verb = "exec"
	Attach      Verb = "attach"
	PortForward Verb = "portforward"
)

// Request is what a URL stands for.
type Request struct {
	Verb Verb
	// ID is the container's, with PortForward the pod's.
	ID                         string
	Cmd                        []string
	Stdin, Stdout, Stderr, TTY bool
	// Ports are those of a port-forward whose protocol has no words for them.
	Ports []int32
}

// maxTokens bounds the requests that nobody has opened yet.
const maxTokens = 1000

// tokens holds requests until they are opened or too old.
type tokens struct {
	lifetime time.Duration

	mu   sync.Mutex
	left map[string]pending
}

type pending struct {
	Request
	until time.Time
}

// put returns the request's token. errs.Exhausted where too many wait.
func (t *tokens) put(r Request) (string, error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, p := range t.left {
		if now.After(p.until) {
			delete(t.left, token)
		}
	}
	if len(t.left) >= maxTokens {
		return "", fmt.Errorf("%d streaming sessions have been asked for and not begun: %w", len(t.left), errs.Exhausted)
	}
	if t.left == nil {
		t.left = map[string]pending{}
	}
	token := rand.Text()
	t.left[token] = pending{r, now.Add(t.lifetime)}
	return token, nil
}

// take returns a token's request, once.
func (t *tokens) take(token string) (Request, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.left[token]
	delete(t.left, token)
	return p.Request, ok && time.Now().Before(p.until)
}
