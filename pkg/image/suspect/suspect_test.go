package suspect

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, dir string) *Marks {
	t.Helper()
	m, err := Open(dir)
	must(t, err)
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, m *Marks, names ...string) {
	t.Helper()
	if diff := cmp.Diff(names, m.Suspects()); diff != "" {
		t.Error(diff)
	}
}

// reboot makes the marks of this kernel those of an earlier one.
func reboot(t *testing.T, m *Marks) *Marks {
	t.Helper()
	must(t, os.Rename(filepath.Join(m.dir, m.boot), filepath.Join(m.dir, rename(t))))
	return open(t, m.dir)
}

var kernels int

func rename(t *testing.T) string {
	t.Helper()
	kernels++
	return "earlier-kernel-" + string(rune('a'+kernels))
}

func TestAnEarlierKernelsMarksAreSuspects(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "marks"))
	want(t, m)
	must(t, m.Add("b"))
	must(t, m.Add("a"))
	want(t, m)
	want(t, open(t, m.dir)) // the daemon died, the kernel did not
	m = reboot(t, m)
	want(t, m, "a", "b")
	must(t, m.Add("b"))
	want(t, reboot(t, m), "a", "b")
}

func TestTrustLasts(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "marks"))
	must(t, m.Add("a"))
	must(t, m.Add("b"))
	m = reboot(t, m)
	must(t, m.Trust("a"))
	must(t, m.Trust("never marked"))
	want(t, m, "b")
	m = open(t, m.dir)
	want(t, m, "b")
	must(t, m.Trust("b"))
	want(t, open(t, m.dir))
	if left, err := os.ReadDir(m.dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWhatIsGoneIsNoSuspect(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "marks"))
	must(t, m.Add("a"))
	m = reboot(t, m)
	must(t, m.Add("a"))
	must(t, m.Forget("a"))
	must(t, m.Add("b"))
	want(t, reboot(t, m), "b")
}

func TestACleanStopLeavesTheSuspectsOfEarlierKernels(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "marks"))
	must(t, m.Clear()) // nothing was ever written
	must(t, m.Add("not verified yet"))
	m = reboot(t, m)
	must(t, m.Add("written well"))
	must(t, m.Clear())
	want(t, open(t, m.dir), "not verified yet")
}
