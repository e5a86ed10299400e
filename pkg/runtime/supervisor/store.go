package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is what the anchor keeps for one container: descriptors by name, and
// whose end belongs into the journal.
type entry struct {
	ID    string         `json:"id"`
	PID   int            `json:"pid,omitempty"`
	Begun uint64         `json:"begun,omitempty"`
	FDs   map[string]int `json:"fds"`
}

func (e *entry) close() {
	for _, fd := range e.FDs {
		_ = unix.Close(fd) // a copy
	}
}

// prune forgets descriptors that are not what they were: a container may end, and
// have its own closed, while its worker is becoming the anchor.
func (e *entry) prune() {
	for name, fd := range e.FDs {
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil || name == namePidfd && !strings.Contains(target, "pidfd") {
			delete(e.FDs, name)
		}
	}
}

// Names of entries and descriptors that are not those of a container's stdio.
const (
	pumpEntry  = ":pump"
	execPrefix = ":exec:"
	namePidfd  = "pidfd"
	nameStage  = "stage"
	nameGate   = "gate" // of a container that is being started
)

// execEntry is the id of the entry of an exec. No container's id has a colon.
func execEntry(id, execID string) string { return execPrefix + id + ":" + execID }

// execOf undoes execEntry.
func execOf(entry string) (id, execID string, ok bool) {
	return strings.Cut(strings.TrimPrefix(entry, execPrefix), ":")
}

type operation string

// The messages between worker and anchor. The anchor sends what it keeps as
// puts, and then opReady.
const (
	opPut   operation = "put"   // keep these descriptors too, in place of equal names
	opDrop  operation = "drop"  // close these, or all of the entry
	opReady operation = "ready" // the store has been sent
)

type message struct {
	Op    operation `json:"op"`
	ID    string    `json:"id,omitempty"`
	PID   int       `json:"pid,omitempty"`
	Begun uint64    `json:"begun,omitempty"`
	Names []string  `json:"names,omitempty"`
	fds   []int
}

// maxMessage bounds one message; a container has at most six descriptors.
const (
	maxMessage = 4096
	maxRights  = 16
)

func newMessage(e *entry) *message {
	m := &message{Op: opPut, ID: e.ID, PID: e.PID, Begun: e.Begun}
	for name := range e.FDs {
		m.Names = append(m.Names, name)
	}
	slices.Sort(m.Names)
	for _, name := range m.Names {
		m.fds = append(m.fds, e.FDs[name])
	}
	return m
}

// send writes m to a SOCK_SEQPACKET socket.
func send(link int, m *message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(m.fds) > 0 {
		rights = unix.UnixRights(m.fds...)
	}
	for {
		err := unix.Sendmsg(link, data, rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// errLinkClosed says that the process at the other end is gone.
var errLinkClosed = errors.New("link is closed")

// receive reads one message; its descriptors are the caller's.
func receive(link int) (*message, error) {
	data, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, _, _, err := unix.Recvmsg(link, data, oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(link, data, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil || n == 0 {
		return nil, errors.Join(errLinkClosed, err)
	}
	m := &message{}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, rightsErr := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, rightsErr)
		m.fds = append(m.fds, fds...)
	}
	if err = errors.Join(err, json.Unmarshal(data[:n], m)); err == nil && len(m.fds) != len(m.Names) && m.Op == opPut {
		err = fmt.Errorf("%d names for %d descriptors", len(m.Names), len(m.fds))
	}
	if err != nil {
		closeFDs(m.fds)
		return nil, err
	}
	return m, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // copies
	}
}

// store holds entries by id. It belongs to one goroutine.
type store map[string]*entry

// apply does what m says; it takes over m's descriptors.
func (s store) apply(m *message) {
	switch m.Op {
	case opPut:
		s.put(m)
	case opDrop:
		s.drop(m)
	default:
		closeFDs(m.fds)
	}
}

func (s store) put(m *message) {
	e := s[m.ID]
	if e == nil {
		e = &entry{ID: m.ID, FDs: map[string]int{}}
		s[m.ID] = e
	}
	if m.PID != 0 {
		e.PID, e.Begun = m.PID, m.Begun
	}
	for i, name := range m.Names {
		if old, ok := e.FDs[name]; ok {
			_ = unix.Close(old) // a copy
		}
		e.FDs[name] = m.fds[i]
	}
}

func (s store) drop(m *message) {
	closeFDs(m.fds)
	e := s[m.ID]
	if e == nil {
		return
	}
	if len(m.Names) == 0 {
		e.close()
		delete(s, m.ID)
		return
	}
	for _, name := range m.Names {
		if fd, ok := e.FDs[name]; ok {
			_ = unix.Close(fd) // a copy
			delete(e.FDs, name)
		}
	}
}
