package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// hang makes the log one that takes nothing until the returned end is read.
func hang(t *testing.T, s *Stdio) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := unix.Dup3(int(w.Fd()), s.log.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDiskThatHangsHoldsNobodyUpForLong(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	p, s, out, errput := fixture(t, Config{LogPath: log})
	defer errput.Close()
	disk := hang(t, s)
	p.calls.patient = 20 * time.Millisecond
	const n = 3000 // lines, more than a pipe takes with what the log adds
	for range n {
		fmt.Fprintln(out, "a line of the log")
	}
	out.Close()
	began := time.Now()
	s.Drain()
	if err := s.Reopen(); !errors.Is(err, errs.Timeout) {
		t.Errorf("reopen: %v", err)
	}
	other, err := p.Prepare(Config{ID: "other", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Begin(); !errors.Is(err, errs.Timeout) {
		t.Errorf("begin: %v", err)
	}
	other.Close()
	s.Close()
	if took := time.Since(began); took > pumpLimit {
		t.Errorf("took %v", took)
	}
	// What the log lacks follows, and then it is closed.
	written, err := io.ReadAll(disk)
	if lines := strings.Count(string(written), " F a line of the log\n"); lines != n || err != nil {
		t.Errorf("%d lines, %v", lines, err)
	}
}
