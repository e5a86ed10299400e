package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/session"
	"github.com/berth-run/berth/test/testutil"
)

// host runs processes of this machine.
type host struct{ t *testing.T }

func (h host) ExecStream(ctx context.Context, r runtime.ExecRequest, files runtime.ExecIO, started func()) (int32, error) {
	for _, f := range []*os.File{files.Stdin, files.Stdout, files.Stderr} {
		h.wantBlocking(f)
	}
	cmd := exec.Command(r.Process.Args[0], r.Process.Args[1:]...)
	// A nil *os.File is no nil io.Reader.
	if files.Stdin != nil {
		cmd.Stdin = files.Stdin
	}
	if files.Stdout != nil {
		cmd.Stdout = files.Stdout
	}
	if files.Stderr != nil {
		cmd.Stderr = files.Stderr
	}
	if files.Console != nil {
		slave := h.terminal(files)
		defer slave.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	started()
	ended := make(chan int32, 1)
	go func() { _ = cmd.Wait(); ended <- int32(cmd.ProcessState.ExitCode()) }()
	select {
	case exit := <-ended:
		return exit, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// wantBlocking checks what a program relies on. (os/exec would see to it.)
func (h host) wantBlocking(f *os.File) {
	h.t.Helper()
	if f == nil {
		return
	}
	raw, err := f.SyscallConn()
	if err != nil {
		h.t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			h.t.Errorf("the process gets a file with flags %#x, %v", flags, err)
		}
	})
}

// terminal makes one, sends its master away and returns its other end.
func (h host) terminal(files runtime.ExecIO) *os.File {
	h.t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer unix.Close(master)
	_ = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	_ = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Col: files.Width, Row: files.Height})
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		h.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Sendmsg(int(files.Console.Fd()), []byte("tty"), unix.UnixRights(master), nil, 0); err != nil {
		h.t.Fatal(err)
	}
	return slave
}

func shell(script string) runtime.ExecRequest {
	return runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}}}
}

// sink is a client's output.
type sink struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed bool
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *sink) text() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String(), s.closed
}

func TestExecTellsAllThatWasWrittenAndTheExitCode(t *testing.T) {
	var out, errOut sink
	exit, err := session.Exec(t.Context(), host{t}, shell("cat; echo bad >&2; exit 7"), session.Streams{
		Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut,
	})
	if err != nil || exit != 7 {
		t.Fatalf("exit %d, %v", exit, err)
	}
	for want, s := range map[string]*sink{"hello": &out, "bad\n": &errOut} {
		if got, closed := s.text(); got != want || !closed {
			t.Errorf("got %q, closed %t, want %q", got, closed, want)
		}
	}
}

func TestInputArrivesWholeAfterTheOutputIsClosed(t *testing.T) {
	const size = 64 << 20
	file := t.TempDir() + "/file"
	var out sink
	exit, err := session.Exec(t.Context(), host{t}, shell("exec >&- 2>&-; sleep 0.3; cat > "+file), session.Streams{
		Stdin: io.LimitReader(zeros{}, size), Stdout: &out, Stderr: &sink{},
	})
	if err == nil {
		if info, statErr := os.Stat(file); statErr != nil || info.Size() != size {
			t.Errorf("%v, %v", info, statErr)
		}
	}
	if err != nil || exit != 0 {
		t.Errorf("exit %d, %v", exit, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// slow takes its time over each write.
type slow struct {
	sink
	each time.Duration
}

func (s *slow) Write(p []byte) (int, error) {
	<-time.After(s.each)
	return s.sink.Write(p)
}

func TestOutputBeforeTheExitReachesASlowClient(t *testing.T) {
	out := slow{each: 300 * time.Millisecond} // longer than the process is waited on
	exit, err := session.Exec(t.Context(), host{t}, shell("head -c 100000 /dev/zero; exit 3"), session.Streams{Stdout: &out})
	if got, _ := out.text(); err != nil || exit != 3 || len(got) != 100000 {
		t.Errorf("exit %d, %d bytes, %v", exit, len(got), err)
	}
}

func TestAProcessLeftBehindDoesNotHoldTheSession(t *testing.T) {
	var out sink
	began := time.Now()
	exit, err := session.Exec(t.Context(), host{t}, shell("echo on; sleep 5 & exit 0"), session.Streams{Stdout: &out})
	if got, _ := out.text(); err != nil || exit != 0 || got != "on\n" || time.Since(began) > 4*time.Second {
		t.Errorf("exit %d, %q, %v after %s", exit, got, err, time.Since(began))
	}
	exit, err = session.Exec(t.Context(), host{t}, shell("timeout 5 yes & exit 0"), session.Streams{Stdout: &sink{}})
	if err != nil || exit != 0 || time.Since(began) > 4*time.Second {
		t.Errorf("while it writes: exit %d, %v after %s", exit, err, time.Since(began))
	}
}

func TestInputThatIsNotReadIsTaken(t *testing.T) {
	stdin, fill := io.Pipe()
	taken := make(chan error, 1)
	go func() {
		_, err := io.CopyN(fill, zeros{}, 1<<20)
		taken <- errors.Join(err, fill.Close())
	}()
	exit, err := session.Exec(t.Context(), host{t}, shell("exec <&-; sleep 1"), session.Streams{Stdin: stdin})
	if err != nil || exit != 0 {
		t.Errorf("exit %d, %v", exit, err)
	}
	if err := <-taken; err != nil {
		t.Error(err)
	}
}

func TestTerminalHasASizeFromTheStartAndFollowsIt(t *testing.T) {
	var out sink
	stdin, keys := io.Pipe()
	sizes := make(chan session.Size, 1)
	sizes <- session.Size{Width: 90, Height: 30}
	ended := make(chan error, 1)
	go func() {
		exit, err := session.Exec(t.Context(), host{t}, shell("stty -echo size; trap 'stty size; exit 4' WINCH; while :; do sleep 0.05; done"), session.Streams{
			Stdin: stdin, Stdout: &out, Terminal: true, Sizes: sizes,
		})
		if exit != 4 {
			err = fmt.Errorf("exit %d, %w", exit, err)
		}
		ended <- err
	}()
	defer keys.Close()
	testutil.Await(t, 10*time.Second, func() error {
		if got, _ := out.text(); !strings.Contains(got, "30 90") {
			return fmt.Errorf("got %q", got)
		}
		select {
		case sizes <- session.Size{Width: 100, Height: 40}: // until the trap is set
		default:
		}
		return nil
	})
	testutil.Await(t, 10*time.Second, func() error {
		select {
		case err := <-ended:
			ended <- err
			return nil
		case sizes <- session.Size{Width: 100, Height: 40}:
		case sizes <- session.Size{Width: 101, Height: 40}:
		}
		return errors.New("it has not heard of the size")
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, closed := out.text(); !strings.Contains(got, "40 10") || !closed {
		t.Errorf("got %q, closed %t", got, closed)
	}
}

func TestAClientThatGoesHangsUp(t *testing.T) {
	signals := make(chan os.Signal, 1) // under nohup the shell would inherit that it is ignored, and could not trap it
	signal.Notify(signals, unix.SIGHUP)
	defer signal.Stop(signals)
	file := t.TempDir() + "/hup"
	var out sink
	stdin, keys := io.Pipe()
	defer keys.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := session.Exec(ctx, host{t}, shell("trap 'echo hup > "+file+"; exit' HUP; echo ready; while :; do sleep 0.05; done"), session.Streams{
			Stdin: stdin, Stdout: &out, Terminal: true,
		})
		ended <- err
	}()
	testutil.Await(t, 10*time.Second, func() error {
		if got, _ := out.text(); !strings.Contains(got, "ready") {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	testutil.Await(t, 10*time.Second, func() error { _, err := os.Stat(file); return err })
}

// attached is a container that says hello, and gives back what it is told.
type attached struct {
	mu    sync.Mutex
	away  int
	sizes []string
}

func (a *attached) Attach(_ context.Context, _ runtime.AttachRequest, files runtime.AttachIO) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away > 0 {
		a.away--
		return errs.Unavailable
	}
	_, err := io.Copy(files.Stdout, files.Stdin)
	return err
}

func (a *attached) Resize(_ context.Context, id string, width, height uint16) error {
	a.sizes = append(a.sizes, fmt.Sprint(id, width, height))
	return nil
}

func TestAttachOutlastsARestart(t *testing.T) {
	var out sink
	c := &attached{away: 2}
	if err := session.Attach(t.Context(), c, "c", session.Streams{Stdin: strings.NewReader("hello"), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if got, closed := out.text(); got != "hello" || !closed {
		t.Errorf("got %q, closed %t", got, closed)
	}
}

func TestAttachEndsWithItsClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdin, keys := io.Pipe()
	time.AfterFunc(50*time.Millisecond, func() { cancel(); keys.Close() })
	if err := session.Attach(ctx, endless{}, "c", session.Streams{Stdin: stdin, Stdout: &sink{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

type endless struct{}

func (endless) Attach(ctx context.Context, _ runtime.AttachRequest, files runtime.AttachIO) error {
	eof := make(chan bool)
	go func() { _, _ = files.Stdin.Read(make([]byte, 1)); close(eof) }()
	select {
	case <-eof: // a client that goes is no end of its input
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (endless) Resize(context.Context, string, uint16, uint16) error { return nil }
