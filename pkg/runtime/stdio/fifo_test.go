package stdio

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheContainersEndCanBeOpenedByItsDescriptor: CRIU does so with the flags that
// the open file has.
func TestTheContainersEndCanBeOpenedByItsDescriptor(t *testing.T) {
	dir := t.TempDir()
	if err := makeFIFO(dir + "/stdout"); err != nil {
		t.Fatal(err)
	}
	f, err := childEnd(dir, "stdout", unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NOFOLLOW != 0 || flags&unix.O_ACCMODE != unix.O_RDWR || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}
