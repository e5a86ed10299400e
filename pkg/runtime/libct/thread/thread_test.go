package thread

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

func TestASpoiltThreadEnds(t *testing.T) {
	testutil.Root(t)
	home, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	for range 20 {
		err := Spoil(func() error {
			if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
				return err
			}
			if now, err := os.Readlink("/proc/thread-self/ns/uts"); err != nil || now == home || unix.Gettid() == unix.Getpid() {
				t.Errorf("in %s, %v, thread %d", now, err, unix.Gettid())
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
	}
	testutil.Await(t, 10*time.Second, func() error { // the last one is about to end
		threads, err := filepath.Glob("/proc/self/task/*/ns/uts")
		if err != nil {
			return err
		}
		for _, path := range threads {
			if ns, err := os.Readlink(path); err == nil && ns != home {
				return errors.New(path + " is in " + ns)
			}
		}
		return nil
	})
}
