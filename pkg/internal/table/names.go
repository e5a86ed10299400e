package table

import "sync"

// Names reserves names: each belongs to one id. The zero value is ready.
type Names struct {
	mu   sync.Mutex
	held map[string]string // name → id
}

// Reserve gives name to id, or returns who holds it already.
func (n *Names) Reserve(name, id string) (holder string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if holder, taken := n.held[name]; taken {
		return holder, false
	}
	if n.held == nil {
		n.held = map[string]string{}
	}
	n.held[name] = id
	return id, true
}

// Release frees name if id holds it.
func (n *Names) Release(name, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held[name] == id {
		delete(n.held, name)
	}
}
