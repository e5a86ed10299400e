package supervisor

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

func TestLongOutputPassesThroughTheWorker(t *testing.T) {
	s := serve(t)
	s.counter(t, "c", 1000000)
	worker := s.now(t).WorkerPID
	exec := func(script string) runtime.ExecResult {
		t.Helper()
		r, err := s.Exec(t.Context(), runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	exec("true")
	before := testutil.PeakMemory(t, worker)
	r := exec("seq 3000000 | head -c 20000000 & seq 4000000 9000000 | head -c 20000000 >&2; wait; exit 5")
	if grown := testutil.PeakMemory(t, worker) - before; grown > 8<<20 {
		t.Errorf("the worker has grown by %d KiB", grown>>10)
	}
	for first, got := range map[int64][]byte{1: r.Stdout, 4000000: r.Stderr} {
		var want []byte
		for n := first; len(want) < defaultOutput; n++ {
			want = append(strconv.AppendInt(want, n, 10), '\n')
		}
		if !bytes.Equal(got, want[:defaultOutput]) {
			t.Errorf("from %d on: %d bytes, not those that were written", first, len(got))
		}
	}
	if r.ExitCode != 5 {
		t.Errorf("exit code %d", r.ExitCode)
	}
	if r := exec("seq 20000 | head -c 70000; echo end >&2"); len(r.Stdout) != 70000 || string(r.Stderr) != "end\n" {
		t.Errorf("%d bytes, %q", len(r.Stdout), r.Stderr)
	}
	if err := s.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
}

// berthd may be older than berth-runtime.
func TestLongOutputIsWholeForAClientThatTakesNoPieces(t *testing.T) {
	s := serve(t)
	s.counter(t, "c", 1000000)
	var r runtime.ExecResult
	err := rpc.Do(t.Context(), testOptions(s.state).Listen, runtime.VerbExec, runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"/bin/sh", "-c", "head -c 1000000 /dev/zero"}}}, &r)
	if err != nil || len(r.Stdout) != 1000000 {
		t.Errorf("%d bytes, %v", len(r.Stdout), err)
	}
	if err := s.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
}
