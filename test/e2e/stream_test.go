package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// executors are kubectl's ways to a session.
var executors = map[string]func(to string) (remotecommand.Executor, error){
	"SPDY": func(to string) (remotecommand.Executor, error) {
		u, err := url.Parse(to)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
	},
	"WebSocket": func(to string) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", to)
	},
}

// session has the session at a URL and returns the exit code.
func session(ctx context.Context, kind, to string, o remotecommand.StreamOptions) (int, error) {
	e, err := executors[kind](to)
	if err != nil {
		return -1, err
	}
	err = e.StreamWithContext(ctx, o)
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		return exit.Code, nil
	}
	return 0, err
}

func (c *ctr) execURL(o remotecommand.StreamOptions, script string) string {
	c.t.Helper()
	resp, err := berth.Runtime.Exec(c.t.Context(), &cri.ExecRequest{
		ContainerId: c.id, Cmd: []string{"/bin/sh", "-c", script}, Stdin: o.Stdin != nil, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil, Tty: o.Tty,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.Url
}

func (c *ctr) attachURL(o remotecommand.StreamOptions) string {
	c.t.Helper()
	resp, err := berth.Runtime.Attach(c.t.Context(), &cri.AttachRequest{
		ContainerId: c.id, Stdin: o.Stdin != nil, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil, Tty: o.Tty,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.Url
}

func eachExecutor(t *testing.T, test func(t *testing.T, kind string)) {
	t.Helper()
	for kind := range executors {
		t.Run(kind, func(t *testing.T) { test(t, kind) })
	}
}

// heard is an output that can be looked at while it is written.
type heard struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *heard) wants(text string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !strings.Contains(h.b.String(), text) {
		return fmt.Errorf("heard %q, not %q", h.b.String(), text)
	}
	return nil
}

func TestKubectlsExecHasStreamsAndTheExitCode(t *testing.T) {
	c := runPod(t).start(sleeper())
	eachExecutor(t, func(t *testing.T, kind string) {
		var out, errOut bytes.Buffer
		o := remotecommand.StreamOptions{Stdin: strings.NewReader("one\ntwo\n"), Stdout: &out, Stderr: &errOut}
		exit, err := session(t.Context(), kind, c.execURL(o, "cat; echo bad >&2; hostname >&2; exit 42"), o)
		if err != nil || exit != 42 || out.String() != "one\ntwo\n" || errOut.String() != "bad\n"+c.pod.id[:12]+"\n" && !strings.HasPrefix(errOut.String(), "bad\n") {
			t.Errorf("exit %d, %q, %q, %v", exit, &out, &errOut, err)
		}
		o = remotecommand.StreamOptions{Stdout: io.Discard}
		resp, err := berth.Runtime.Exec(t.Context(), &cri.ExecRequest{ContainerId: c.id, Cmd: []string{"no-such-program"}, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := session(t.Context(), kind, resp.Url, o); err == nil || !strings.Contains(err.Error(), "not found in $PATH") {
			t.Errorf("a program that is missing: %v", err)
		}
	})
}

// inputSize is what a client pipes into cat; BERTH_TEST_INPUT=3072 is 3 GB.
func inputSize(t *testing.T) int64 {
	t.Helper()
	mib := 200
	if v := os.Getenv("BERTH_TEST_INPUT"); v != "" {
		var err error
		if mib, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	return int64(mib) << 20
}

// numbers is an input whose every block differs.
type numbers struct{ n uint64 }

func (r *numbers) Read(p []byte) (int, error) {
	p = p[:len(p)/8*8]
	for i := 0; i < len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], r.n)
		r.n++
	}
	return len(p), nil
}

func TestAllInputArrivesAfterTheOutputIsClosed(t *testing.T) {
	c := runPod(t).start(sleeper())
	size := inputSize(t)
	const script = "exec >&- 2>&-; cat > /tmp/input"
	arrives := func(t *testing.T, exec func(in io.Reader) (exit int, err error)) {
		t.Helper()
		sum := sha256.New()
		if exit, err := exec(io.TeeReader(io.LimitReader(&numbers{}, size), sum)); err != nil || exit != 0 {
			t.Errorf("exit %d, %v", exit, err)
		}
		if got, want := c.sh("sha256sum < /tmp/input; rm /tmp/input"), fmt.Sprintf("%x", sum.Sum(nil)); !strings.HasPrefix(got, want) {
			t.Errorf("what arrived has digest %s, what was sent %s", got, want)
		}
	}
	eachExecutor(t, func(t *testing.T, kind string) {
		arrives(t, func(in io.Reader) (int, error) {
			o := remotecommand.StreamOptions{Stdin: in, Stdout: io.Discard, Stderr: io.Discard}
			return session(t.Context(), kind, c.execURL(o, script), o)
		})
	})
	t.Run("berth", func(t *testing.T) {
		arrives(t, func(in io.Reader) (int, error) {
			k := berth.Command(t.Context(), "exec", "-i", c.id, "/bin/sh", "-c", script)
			k.Stdin = in
			return 0, k.Run()
		})
	})
}

// late takes its time.
type late struct{ bytes int }

func (l *late) Write(p []byte) (int, error) {
	<-time.After(20 * time.Millisecond)
	l.bytes += len(p)
	return len(p), nil
}

func TestTheLastOutputReachesAClientThatIsSlow(t *testing.T) {
	c := runPod(t).start(sleeper())
	eachExecutor(t, func(t *testing.T, kind string) {
		out := &late{}
		o := remotecommand.StreamOptions{Stdout: out}
		exit, err := session(t.Context(), kind, c.execURL(o, "head -c 1000000 /dev/zero; exit 5"), o)
		if err != nil || exit != 5 || out.bytes != 1000000 {
			t.Errorf("exit %d, %d bytes, %v", exit, out.bytes, err)
		}
		for range 20 {
			var out bytes.Buffer
			o := remotecommand.StreamOptions{Stdout: &out}
			if exit, err := session(t.Context(), kind, c.execURL(o, "echo last"), o); err != nil || exit != 0 || out.String() != "last\n" {
				t.Fatalf("exit %d, %q, %v", exit, &out, err)
			}
		}
	})
}

// window is a client's terminal.
type window chan remotecommand.TerminalSize

func (w window) Next() *remotecommand.TerminalSize {
	s, ok := <-w
	if !ok {
		return nil
	}
	return &s
}

func TestATerminalHasTheClientsSize(t *testing.T) {
	c := runPod(t).start(sleeper())
	eachExecutor(t, func(t *testing.T, kind string) {
		in, keys := io.Pipe()
		defer keys.Close()
		sizes := make(window, 1)
		defer close(sizes)
		sizes <- remotecommand.TerminalSize{Width: 91, Height: 31}
		out := &heard{}
		o := remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: true, TerminalSizeQueue: sizes}
		ended := make(chan error, 1)
		go func() {
			exit, err := session(t.Context(), kind, c.execURL(o, "stty size; tty; while read l; do stty size; [ $l = end ] && exit 9; done"), o)
			if exit != 9 {
				err = fmt.Errorf("exit %d, %w", exit, err)
			}
			ended <- err
		}()
		eventually(t, func() error { return errors.Join(out.wants("31 91"), out.wants("/dev/pts/")) })
		sizes <- remotecommand.TerminalSize{Width: 101, Height: 41}
		eventually(t, func() error {
			_, _ = io.WriteString(keys, "again\n") // the size comes another way
			return out.wants("41 101")
		})
		_, _ = io.WriteString(keys, "end\n") // the end tells
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAClientThatGoesHangsUpAndHarmsNobody(t *testing.T) {
	c := runPod(t).start(sleeper())
	eachExecutor(t, func(t *testing.T, kind string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, keys := io.Pipe()
		defer keys.Close()
		out := &heard{}
		o := remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: true}
		ended := make(chan bool)
		go func() {
			defer close(ended)
			_, _ = session(ctx, kind, c.execURL(o, "echo ready; exec sleep 5005"), o) // cut
		}()
		eventually(t, func() error { return out.wants("ready") })
		cancel()
		<-ended
		eventually(t, func() error {
			if out := c.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"); strings.Contains(out, "sleep 5005") {
				return fmt.Errorf("left: %s", out)
			}
			return nil
		})
	})
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container: %v", s)
	}
}

func TestURLsAreGoodOnce(t *testing.T) {
	c := runPod(t).start(sleeper())
	o := remotecommand.StreamOptions{Stdout: io.Discard}
	to := c.execURL(o, "true")
	if exit, err := session(t.Context(), "SPDY", to, o); err != nil || exit != 0 {
		t.Fatalf("exit %d, %v", exit, err)
	}
	if _, err := session(t.Context(), "SPDY", to, o); err == nil {
		t.Error("it is good twice")
	}
	if !strings.HasPrefix(to, "http://127.0.0.1:") {
		t.Errorf("it is %s", to)
	}
	if _, err := berth.Runtime.Exec(t.Context(), &cri.ExecRequest{ContainerId: c.id, Cmd: []string{"true"}, Stdout: true, Stderr: true, Tty: true}); code(err) != codes.InvalidArgument {
		t.Errorf("a terminal with stderr: %v", err)
	}
}

func TestARestartEndsSessionsAndNoContainer(t *testing.T) {
	c := runPod(t).start(sleeper())
	talker := sh("while :; do echo on; sleep 0.1; done")
	talking := c.pod.start(talker)
	for name, end := range map[string]func() error{"stopped": berth.StopDaemon, "killed": berth.Kill} {
		out, attached := &heard{}, &heard{}
		in, keys := io.Pipe()
		exec := remotecommand.StreamOptions{Stdin: in, Stdout: out}
		attach := remotecommand.StreamOptions{Stdout: attached}
		ended := make(chan error, 2)
		execTo, attachTo := c.execURL(exec, "echo ready; cat; echo over > /tmp/"+name), talking.attachURL(attach)
		go func() {
			_, err := session(t.Context(), "WebSocket", execTo, exec)
			ended <- err
		}()
		go func() {
			_, err := session(t.Context(), "SPDY", attachTo, attach)
			ended <- err
		}()
		eventually(t, func() error { return errors.Join(out.wants("ready"), attached.wants("on\n")) })
		withoutDaemon(t, end, func() {
			for range 2 {
				select {
				case <-ended: // kubectl says what it likes
				case <-time.After(30 * time.Second):
					t.Errorf("%s: a session goes on without a daemon", name)
				}
			}
		})
		keys.Close()
		// The command saw the end of its input, and nobody killed it.
		eventually(t, func() error {
			if out, exit := c.exec("/bin/cat", "/tmp/"+name); exit != 0 {
				return fmt.Errorf("%s: the command has not ended by itself: %s", name, out)
			}
			return nil
		})
		for _, k := range []*ctr{c, talking} {
			if s := k.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
				t.Errorf("%s: the container: %v", name, s)
			}
		}
		again := &heard{}
		o := remotecommand.StreamOptions{Stdout: again}
		ctx, cancel := context.WithCancel(t.Context())
		to := talking.attachURL(o)
		go func() { _, _ = session(ctx, "SPDY", to, o) }() // cut
		eventually(t, func() error { return again.wants("on\n") })
		cancel()
	}
}
