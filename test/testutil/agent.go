package testutil

import (
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Agent is a seccomp agent: who makes a container tells it of processes, and the
// kernel asks it for what their filters leave to it.
type Agent struct {
	Path string
	// Unanswered gets a value for each system call that the agent leaves unanswered.
	Unanswered chan struct{}

	mu    sync.Mutex
	told  []specs.ContainerProcessState
	asked int
}

// NewAgent starts an agent that answers every system call with an error number, 0 for
// success. A negative one means that it never answers.
func NewAgent(t testing.TB, answer int32) *Agent {
	t.Helper()
	a := &Agent{Path: filepath.Join(t.TempDir(), "agent.sock"), Unanswered: make(chan struct{}, 16)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.Path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return // closed
			}
			served.Go(func() { a.serve(t, conn, answer) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return a
}

// Told returns the processes that the agent has been told of.
func (a *Agent) Told() []specs.ContainerProcessState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]specs.ContainerProcessState(nil), a.told...)
}

// Asked returns how many system calls it has answered.
func (a *Agent) Asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

func (a *Agent) serve(t testing.TB, conn *net.UnixConn, answer int32) {
	listener, state, err := receiveProcess(conn)
	_ = conn.Close()
	if err != nil {
		t.Errorf("seccomp agent: %v", err)
		return
	}
	defer unix.Close(listener)
	a.mu.Lock()
	a.told = append(a.told, state)
	a.mu.Unlock()
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // all processes of the filter have ended
		}
		a.answer(listener, answer)
	}
}

// question and reply are the kernel's seccomp_notif and seccomp_notif_resp.
type question struct {
	id          uint64
	pid, flags  uint32
	number      int32
	arch        uint32
	instruction uint64
	args        [6]uint64
}

type reply struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

func (a *Agent) answer(listener int, errno int32) {
	var q question
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&q))); e != 0 {
		return // who asked has ended
	}
	a.mu.Lock()
	a.asked++
	a.mu.Unlock()
	if errno < 0 {
		select {
		case a.Unanswered <- struct{}{}:
		default: // nobody looks
		}
		return
	}
	r := reply{id: q.id, err: -errno}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))) // who asked may have ended
}

// receiveProcess takes what the runtime specification says is sent to an agent: one
// process for each connection, which is closed after.
func receiveProcess(conn *net.UnixConn) (listener int, state specs.ContainerProcessState, err error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return -1, state, err
	}
	text, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return -1, state, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, state, errors.Join(errors.New("no control message"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, state, errors.Join(errors.New("not one descriptor"), err)
	}
	if err := json.Unmarshal(text[:n], &state); err != nil {
		return fds[0], state, err
	}
	if n, err := conn.Read(text); n != 0 || err == nil {
		return fds[0], state, errors.New("more than one process in a connection")
	}
	return fds[0], state, nil
}
