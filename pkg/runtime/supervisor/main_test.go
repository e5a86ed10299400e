package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/crilog"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/test/testutil"
)

// TestMain makes the test binary be berth-runtime and its workloads too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			os.Exit(Main(testOptions(os.Args[2])))
		case "gate":
			gate(os.Args[2], os.Args[3:])
		case "count":
			count(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

func testOptions(state string) Options {
	return Options{
		State:        state,
		Listen:       filepath.Join(state, "runtime.sock"),
		CgroupDriver: "cgroupfs",
		Version:      "test",
		Program:      selfProgram,
		NewEngine:    func(dir string) (runtime.Engine, error) { return &hostEngine{dir}, nil },
	}
}

// gate waits to be let through and becomes the program.
func gate(path string, args []string) {
	f, err := os.Open(path)
	if err == nil {
		_, err = f.Read(make([]byte, 1))
	}
	if err == nil {
		err = unix.Exec(args[0], args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(127)
}

// count writes numbered lines, one each millisecond, and exits with 7.
func count(limit string) {
	n, _ := strconv.Atoi(limit)
	tick := time.NewTicker(time.Millisecond)
	for i := range n {
		if _, err := fmt.Println(i); err != nil {
			os.Exit(99)
		}
		<-tick.C
	}
	os.Exit(7)
}

// server is a pair of real processes.
type server struct {
	*runtime.Client
	state  string
	anchor *exec.Cmd
}

func serve(t testing.TB) *server {
	t.Helper()
	s := &server{state: t.TempDir()}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) start(t testing.TB) {
	t.Helper()
	s.anchor = exec.Command(os.Args[0], "serve", s.state)
	s.anchor.Stderr = os.Stderr
	if err := s.anchor.Start(); err != nil {
		t.Fatal(err)
	}
	s.Client = runtime.Dial(testOptions(s.state).Listen)
	s.now(t)
}

// await waits until the version satisfies ok, and returns it.
func (s *server) await(t testing.TB, ok func(runtime.Version) bool) (v runtime.Version) {
	t.Helper()
	testutil.Await(t, 20*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if v, err = s.Version(ctx); err == nil && !ok(v) {
			err = fmt.Errorf("server is %+v", v)
		}
		return err
	})
	return v
}

// now returns the version of whoever serves.
func (s *server) now(t testing.TB) runtime.Version {
	t.Helper()
	return s.await(t, func(runtime.Version) bool { return true })
}

func (s *server) stop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v, err := s.Version(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	if err := unix.Kill(v.AnchorPID, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if v.AnchorPID == s.anchor.Process.Pid {
		_ = s.anchor.Wait()
		return
	}
	awaitEnd(t, v.AnchorPID)
}

// awaitEnd waits for a process that is not ours to reap.
func awaitEnd(t testing.TB, pid int) {
	t.Helper()
	testutil.Await(t, 20*time.Second, func() error {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !bytes.Contains(data, []byte(") Z ")) {
			return fmt.Errorf("process %d does not end", pid)
		}
		return nil
	})
}

func hostSpec(args ...string) *specs.Spec {
	return &specs.Spec{Root: &specs.Root{Path: "/"}, Process: &specs.Process{Args: args}}
}

// counter starts a container that writes n lines; the name of its log is returned.
func (s *server) counter(t testing.TB, id string, n int) string {
	t.Helper()
	log := filepath.Join(s.state, id+".log")
	r := runtime.CreateRequest{ID: id, Spec: hostSpec(os.Args[0], "count", strconv.Itoa(n)), LogPath: log}
	if _, err := s.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return log
}

func (s *server) awaitStopped(t testing.TB, id string) (c runtime.Container) {
	t.Helper()
	testutil.Await(t, 60*time.Second, func() error {
		all, err := s.List(context.Background())
		if err != nil {
			return err // killed while it answered
		}
		for _, c = range all {
			if c.ID == id && c.State == runtime.Stopped {
				return nil
			}
		}
		return fmt.Errorf("container %s does not stop: %v", id, all)
	})
	return c
}

// awaitMore waits until a counter has written some more lines, or its last.
func awaitMore(t testing.TB, log string) {
	t.Helper()
	written := func() []byte {
		data, _ := os.ReadFile(log) // it may not be there yet
		return data
	}
	const some = 2000 // bytes, of lines of about forty
	before := len(written())
	testutil.Await(t, 20*time.Second, func() error {
		data := written()
		if len(data) < before+some && !bytes.HasSuffix(data, fmt.Appendf(nil, " %d\n", lines-1)) {
			return fmt.Errorf("log %s had %d bytes and has %d", log, before, len(data))
		}
		return nil
	})
}

// wantLines checks that the log holds 0 to n-1, each once, in order.
func wantLines(t testing.TB, log string, n int) {
	t.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for line := range bytes.Lines(data) {
		r, err := crilog.Parse(line)
		if err != nil || string(r.Text) != strconv.Itoa(next) || r.Partial {
			t.Fatalf("line %d is %q: %v", next, line, err)
		}
		next++
	}
	if next != n {
		t.Errorf("%d lines of %d", next, n)
	}
}

func TestSupervisorConforms(t *testing.T) {
	runtimetest.Run(t,
		func(t *testing.T) runtime.Runtime { return serve(t) },
		func(*testing.T, string) *specs.Spec { return hostSpec("/bin/sleep", "1000") })
}

func BenchmarkCreateStartDelete(b *testing.B) {
	s := serve(b)
	r := runtime.CreateRequest{ID: "c", Spec: hostSpec("/bin/true"), LogPath: filepath.Join(s.state, "log")}
	for b.Loop() {
		if _, err := s.Create(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Start(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
		if err := s.Delete(b.Context(), "c"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	s := serve(b)
	s.counter(b, "c", 1000000)
	for b.Loop() {
		if _, err := s.Exec(b.Context(), runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"/bin/true"}}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Delete(b.Context(), "c"); err != nil {
		b.Fatal(err)
	}
}
