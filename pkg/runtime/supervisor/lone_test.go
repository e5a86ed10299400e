package supervisor

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// newLone returns a worker within this process, not yet opened, whose anchor is
// a socket that nobody reads.
func newLone(t *testing.T, engine func(dir string) runtime.Engine) *worker {
	t.Helper()
	o := testOptions(t.TempDir())
	o.NewEngine = func(dir string) (runtime.Engine, error) { return engine(dir), nil }
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFDs(pair[:]) })
	w := newWorker(&o)
	w.keeper = &keeper{link: pair[0], lost: make(chan struct{})}
	return w
}

// lone is newLone, opened.
func lone(t *testing.T, engine func(dir string) runtime.Engine) *worker {
	t.Helper()
	w := newLone(t, engine)
	if err := w.open(store{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}
