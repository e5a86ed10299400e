package supervisor

import (
	"errors"
	"log/slog"
)

// keeper is the worker's side of the link to the anchor. A send that fails is
// not reported: the anchor is gone then, and lost tells it.
type keeper struct {
	link int
	lost chan struct{} // closed when the anchor is gone
}

// openKeeper receives what the anchor keeps and watches it from then on.
func openKeeper(link int) (*keeper, store, error) {
	k, kept := &keeper{link: link, lost: make(chan struct{})}, store{}
	for {
		m, err := receive(link)
		if err != nil {
			return nil, nil, err
		}
		if m.Op == opReady {
			break
		}
		kept.apply(m)
	}
	go k.watch()
	return k, kept, nil
}

func (k *keeper) watch() {
	defer close(k.lost)
	for {
		m, err := receive(k.link)
		switch {
		case errors.Is(err, errLinkClosed):
			return
		case err != nil:
			slog.Error("message from the anchor cannot be read", "err", err)
		default:
			closeFDs(m.fds)
		}
	}
}

// put gives the anchor copies of e's descriptors.
func (k *keeper) put(e *entry) { _ = send(k.link, newMessage(e)) }

// drop lets the anchor close its copies: those of that name, or all of id.
func (k *keeper) drop(id string, names ...string) {
	_ = send(k.link, &message{Op: opDrop, ID: id, Names: names})
}
