package stdio

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/crilog"
)

// fixture is a pump with one container whose ends the test holds.
func fixture(t testing.TB, cfg Config) (*Pump, *Stdio, *os.File, *os.File) {
	t.Helper()
	dir := t.TempDir()
	p, err := OpenPump(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	p.Run()
	t.Cleanup(p.Close)
	cfg.ID, cfg.Dir = "c", dir
	s, err := p.Prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	out, errs := dup(t, s.child.Stdout), dup(t, s.child.Stderr)
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	return p, s, out, errs
}

func dup(t testing.TB, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "child")
}

// texts returns the log's records as "stream tag text".
func texts(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range bytes.Lines(data) {
		r, err := crilog.Parse(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		tag := "F"
		if r.Partial {
			tag = "P"
		}
		all = append(all, fmt.Sprintf("%s %s %s", r.Stream, tag, r.Text))
	}
	return all
}

func equal(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLinesReachTheLogOnDrain(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	fmt.Fprint(out, "a\nb")
	s.Drain() // the order of two streams is nobody's
	fmt.Fprint(errs, "e\n")
	s.Drain()
	equal(t, texts(t, log), "stdout F a", "stderr F e")
	fmt.Fprint(out, "c\nlast")
	s.Drain()
	equal(t, texts(t, log), "stdout F a", "stderr F e", "stdout F bc")
	out.Close()
	errs.Close()
	s.Drain()
	equal(t, texts(t, log), "stdout F a", "stderr F e", "stdout F bc", "stdout P last")
}

func TestReopenSwitchesFilesWithoutLosingALine(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	defer errs.Close()
	written := make(chan bool)
	go func() {
		for i := range 20000 {
			fmt.Fprintf(out, "%d\n", i)
		}
		out.Close()
		close(written)
	}()
	for i := range 20 {
		if err := os.Rename(log, fmt.Sprintf("%s.%02d", log, i)); err != nil {
			t.Fatal(err)
		}
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	<-written
	s.Drain()
	files, err := filepath.Glob(log + "*")
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, f := range append(files[1:], files[0]) {
		for _, line := range texts(t, f) {
			if want := fmt.Sprintf("stdout F %d", next); line != want {
				t.Fatalf("%s: got %q, want %q", f, line, want)
			}
			next++
		}
	}
	if next != 20000 {
		t.Errorf("%d lines", next)
	}
}

func TestReopenThatFailsKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	defer errs.Close()
	defer out.Close()
	moved := filepath.Join(dir, "moved")
	if err := os.Rename(log, moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", log); err != nil {
		t.Fatal(err)
	}
	if err := s.Reopen(); err == nil {
		t.Error("a symbolic link was followed")
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a file was created")
	}
	fmt.Fprintln(out, "still here")
	s.Drain()
	equal(t, texts(t, moved), "stdout F still here")
}

func TestTheNextPumpFinishesABatch(t *testing.T) {
	at := time.Unix(1700000000, 1)
	stamp := crilog.NewStamp(at, crilog.Stdout)
	whole, _ := stamp.Append(make([]byte, 0, 4096), []byte("one\ntwo\n"), false)
	for _, c := range []struct {
		name    string
		state   uint32
		written int // bytes of the log
		moved   int // bytes taken
	}{
		{"nothing done", slotWriting, 0, 0},
		{"log torn", slotWriting, 50, 0},
		{"log written", slotWriting, len(whole), 0},
		{"nothing taken", slotTaking, len(whole), 0},
		{"some taken", slotTaking, len(whole), 5},
		{"all taken", slotTaking, len(whole), 8},
		{"done", slotIdle, len(whole), 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "0.log")
			if err := os.WriteFile(log, append([]byte("old\n"), whole[:c.written]...), 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := OpenPump(dir, -1)
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{ID: "c", Dir: dir, LogPath: log}
			s, err := p.Prepare(cfg)
			if err != nil {
				t.Fatal(err)
			}
			child, errors := dup(t, s.child.Stdout), dup(t, s.child.Stderr)
			fmt.Fprint(child, "one\ntwo\nthree\n")
			inode, _ := s.log.position()
			p.slot.begin(&batch{id: "c", stream: 1, size: 8, at: at, inode: inode, offset: 4})
			p.slot.set(c.state)
			if c.moved > 0 {
				if _, err := unix.Splice(s.streams[0].fd, nil, p.stage, nil, c.moved, 0); err != nil {
					t.Fatal(err)
				}
			}
			// The first pump dies here; its descriptors live on in a keeper.
			next, err := OpenPump(dir, p.Stage())
			if err != nil {
				t.Fatal(err)
			}
			s2, err := next.Restore(cfg, s.FDs())
			go func() { child.Close(); errors.Close() }()
			if err != nil {
				t.Fatal(err)
			}
			next.Run()
			s2.Close()
			next.Close()
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			rest, found := bytes.CutPrefix(data, append([]byte("old\n"), whole...))
			if !found || !bytes.HasSuffix(rest, []byte("stdout F three\n")) || bytes.Count(rest, []byte("\n")) != 1 {
				t.Errorf("log: %q", data)
			}
		})
	}
}

func TestSilentPumpHoldsUnfinishedLineInTheKernel(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	defer errs.Close()
	fmt.Fprint(out, strings.Repeat("x", crilog.MaxLine+10))
	s.Drain()
	if got := texts(t, log); len(got) != 1 || len(got[0]) != len("stdout P ")+crilog.MaxLine {
		t.Errorf("%d records", len(got))
	}
	if n := buffered(s.streams[0].fd); n != 10 {
		t.Errorf("%d bytes wait", n)
	}
	out.Close()
}

func BenchmarkLog(b *testing.B) {
	log := filepath.Join(b.TempDir(), "0.log")
	_, s, out, errs := fixture(b, Config{LogPath: log})
	defer errs.Close()
	defer out.Close()
	data := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 640)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := out.Write(data); err != nil {
			b.Fatal(err)
		}
		if st, err := os.Stat(log); err == nil && st.Size() > 1<<30 {
			_ = os.Truncate(log, 0)
		}
	}
	s.Drain()
}

// Each splice or sendfile into a pipe takes one of its 16 slots, whatever its size.
func TestManyPiecesOfAnUnfinishedLineDoNotFillTheFIFO(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	errs.Close()
	source, pieces, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	defer pieces.Close()
	moved := make(chan error, 1)
	want := strings.Repeat("0123456789", 10)
	go func() {
		defer out.Close()
		for i := range want {
			if _, err := pieces.WriteString(want[i : i+1]); err != nil {
				moved <- err
				return
			}
			if _, err := unix.Splice(int(source.Fd()), nil, int(out.Fd()), nil, 1, 0); err != nil {
				moved <- err
				return
			}
		}
		_, err := out.WriteString("\n")
		moved <- err
	}()
	select {
	case err := <-moved:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		s.Close()
		t.Fatal("the container waits for ever")
	}
	s.Drain()
	if got := text(t, log); got != want+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestABusyWritersLinesAreNotCut(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	_, s, out, errs := fixture(t, Config{LogPath: log})
	errs.Close()
	const lines = 1_000_000
	written := make(chan error, 1)
	go func() {
		defer out.Close()
		line := []byte(strings.Repeat("x", 97) + "\n")
		block := bytes.Repeat(line, 700)
		var err error
		for left := lines * len(line); left > 0 && err == nil; {
			var n int
			n, err = out.Write(block[:min(left, 8192)]) // ends anywhere in a line
			block = append(block[n:], block[:n]...)
			left -= n
		}
		written <- err
	}()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	s.Drain()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n != lines {
		t.Errorf("%d records of %d lines", n, lines)
	}
}
