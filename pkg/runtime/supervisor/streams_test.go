package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

func (s *server) run(t *testing.T, r runtime.CreateRequest) {
	t.Helper()
	if _, err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestAttachCarriesInputAndOutputToSeveralClients(t *testing.T) {
	s := serve(t)
	log := filepath.Join(s.state, "log")
	s.run(t, runtime.CreateRequest{ID: "c", Spec: hostSpec("/bin/cat"), Stdin: true, StdinOnce: true, LogPath: log})
	inR, inW := pipe(t)
	out1R, out1W := pipe(t)
	out2R, out2W := pipe(t)
	ended := make(chan error, 2)
	go func() {
		ended <- s.Attach(t.Context(), runtime.AttachRequest{ID: "c"}, runtime.AttachIO{Stdout: out2W})
	}()
	go func() {
		ended <- s.Attach(t.Context(), runtime.AttachRequest{ID: "c"}, runtime.AttachIO{Stdin: inR, Stdout: out1W})
	}()
	// The clients attach in any order: repeat until the second hears it too.
	heard := make(chan bool)
	go func() { _, _ = out2R.Read(make([]byte, 1)); close(heard) }()
	for done := false; !done; {
		if _, err := inW.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-heard:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	inW.WriteString("\nend\n")
	inW.Close()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	out1W.Close()
	got, err := io.ReadAll(out1R)
	if err != nil || !strings.HasSuffix(string(got), "x\nend\n") {
		t.Errorf("got %q, %v", got, err)
	}
	if c := s.awaitStopped(t, "c"); c.ExitCode != 0 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	if data, err := os.ReadFile(log); err != nil || !strings.HasSuffix(string(data), " F end\n") {
		t.Errorf("log: %q, %v", data, err)
	}
}

func TestClientThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	s := serve(t)
	s.run(t, runtime.CreateRequest{ID: "c", Spec: hostSpec("/bin/sh", "-c", "sleep 0.3; head -c 20000000 /dev/zero; exit 3")})
	_, w := pipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Attach(ctx, runtime.AttachRequest{ID: "c"}, runtime.AttachIO{Stdout: w}) }()
	if c := s.awaitStopped(t, "c"); c.ExitCode != 3 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestInputSurvivesTheWorker(t *testing.T) {
	s := serve(t)
	log := filepath.Join(s.state, "log")
	s.run(t, runtime.CreateRequest{ID: "c", Spec: hostSpec("/bin/cat"), Stdin: true, StdinOnce: true, LogPath: log})
	v := s.await(t, func(runtime.Version) bool { return true })
	s.kill(t, v.WorkerPID, unix.SIGKILL)
	s.await(t, func(now runtime.Version) bool { return now.WorkerPID != v.WorkerPID })
	r, w := pipe(t)
	w.WriteString("still here\n")
	w.Close()
	if err := s.Attach(t.Context(), runtime.AttachRequest{ID: "c"}, runtime.AttachIO{Stdin: r}); err != nil {
		t.Error(err)
	}
	if c := s.awaitStopped(t, "c"); c.ExitCode != 0 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	if data, err := os.ReadFile(log); err != nil || !strings.HasSuffix(string(data), " F still here\n") {
		t.Errorf("log: %q, %v", data, err)
	}
}

func TestExecCapturesTimesOutAndDoesNotHang(t *testing.T) {
	s := serve(t)
	s.counter(t, "c", 1000000)
	exec := func(timeout time.Duration, limit int64, script string) runtime.ExecResult {
		t.Helper()
		r, err := s.Exec(t.Context(), runtime.ExecRequest{ID: "c", Timeout: timeout, MaxOutput: limit, Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := exec(0, 0, "echo out; echo err >&2; exit 5"); r.ExitCode != 5 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		t.Errorf("got %+v", r)
	}
	if r := exec(0, 10, "head -c 3000000 /dev/zero"); r.ExitCode != 0 || len(r.Stdout) != 10 {
		t.Errorf("got %d, %d bytes", r.ExitCode, len(r.Stdout))
	}
	if r := exec(100*time.Millisecond, 0, "echo begun; sleep 100"); !r.TimedOut || string(r.Stdout) != "begun\n" {
		t.Errorf("got %+v", r)
	}
	began := time.Now()
	if r := exec(0, 0, "sleep 5 & echo done"); r.ExitCode != 0 || string(r.Stdout) != "done\n" || time.Since(began) > 3*time.Second {
		t.Errorf("got %+v after %v", r, time.Since(began))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Exec(ctx, runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"/bin/sleep", "100"}}})
	if errs.Of(err) != errs.Timeout {
		t.Errorf("got %v", err)
	}
	if err := s.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
}

func TestReopenLogThroughTheSocket(t *testing.T) {
	s := serve(t)
	log := s.counter(t, "c", 500)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	if err := s.ReopenLog(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	s.awaitStopped(t, "c")
	first, err1 := os.ReadFile(log + ".1")
	second, err2 := os.ReadFile(log)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(s.state, "whole")
	if err := os.WriteFile(whole, append(first, second...), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLines(t, whole, 500)
}
