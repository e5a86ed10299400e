package runtimetest

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// execStream uses processes that a fake has to play: Echo.
func execStream(t *testing.T, s *suite) {
	s.run(t, "a")
	shell := func(script string) runtime.ExecRequest {
		return runtime.ExecRequest{ID: "a", Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"}}
	}
	_, err := s.ExecStream(t.Context(), runtime.ExecRequest{ID: "a", Process: &specs.Process{}}, runtime.ExecIO{}, func() {})
	wantKind(t, "stream an exec of nothing", err, errs.Invalid)
	tty := shell(EchoScript)
	tty.Process.Terminal = true
	_, err = s.ExecStream(t.Context(), tty, runtime.ExecIO{}, func() {})
	wantKind(t, "a terminal without a console", err, errs.Invalid)

	in, out := pipe(t), pipe(t)
	started := make(chan struct{})
	go func() {
		<-started
		in.r.Close()
		out.w.Close()
		_, _ = io.WriteString(in.w, "hello\n") // what arrives is looked at
		in.w.Close()
	}()
	exit, err := s.ExecStream(t.Context(), shell(EchoScript), runtime.ExecIO{Stdin: in.r, Stdout: out.w}, func() { close(started) })
	if err != nil || exit != 7 {
		t.Fatalf("exit %d, %v", exit, err) // nobody would end the output
	}
	if got, err := io.ReadAll(out.r); err != nil || string(got) != "hello\n" {
		t.Errorf("got %q, %v", got, err)
	}

	// The call ends with its caller, the process with its input.
	in, out = pipe(t), pipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.ExecStream(ctx, shell(EchoScript), runtime.ExecIO{Stdin: in.r, Stdout: out.w}, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller has gone: %v", err)
	}
	in.r.Close()
	out.w.Close()
	if _, err := io.WriteString(in.w, "on\n"); err != nil {
		t.Errorf("the process has gone with the caller: %v", err)
	}
	in.w.Close()
	if got, err := io.ReadAll(out.r); err != nil || string(got) != "on\n" {
		t.Errorf("without a caller: %q, %v", got, err)
	}
}

// EchoScript is what ExecStream is tried with: it copies its input and exits with 7.
const EchoScript = "cat; exit 7"

// Echo plays EchoScript.
func Echo(_ runtime.ExecRequest, files runtime.ExecIO) int32 {
	_, _ = io.Copy(files.Stdout, files.Stdin) // the far ends may be gone
	return 7
}

type ends struct{ r, w *os.File }

// pipe is not os.Pipe's, whose non-blocking ends no program expects.
func pipe(t *testing.T) ends {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	t.Cleanup(func() { r.Close(); w.Close() })
	return ends{r, w}
}
