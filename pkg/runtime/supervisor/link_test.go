package supervisor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnchorReadsOnAfterAMessageThatItCannotTake(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan *message)
	go read(pair[0], messages)
	// As where descriptors have run out: one name more than arrive.
	for _, m := range []*message{{Op: opPut, ID: "torn", Names: []string{"a"}}, {Op: opDrop, ID: "whole"}} {
		if err := send(pair[1], m); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case m := <-messages:
		if m == nil || m.ID != "whole" {
			t.Errorf("got %+v", m)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is read")
	}
	_ = unix.Close(pair[1])
	if m := <-messages; m != nil {
		t.Errorf("got %+v", m)
	}
	_ = unix.Close(pair[0])
}
