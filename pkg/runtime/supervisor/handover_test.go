package supervisor

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheNextAnchorForgetsWhatWasClosedOnTheWay(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	const closed = 900 // more than the test has
	h := &handover{Listen: int(r.Fd()), Lock: int(w.Fd()), Entries: []*entry{
		{ID: "runs", FDs: map[string]int{"stdout": int(r.Fd()), namePidfd: self}},
		{ID: "ended", FDs: map[string]int{"stdout": int(r.Fd()), "stderr": closed, namePidfd: closed}},
		{ID: "ended, and its number taken", FDs: map[string]int{namePidfd: int(w.Fd())}},
	}}
	memory, err := h.write()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(handoverVariable, strconv.Itoa(memory))
	got, err := takeHandover()
	if err != nil || len(got.Entries) != 3 {
		t.Fatal(got, err)
	}
	for i, want := range [][]string{{namePidfd, "stdout"}, {"stdout"}, nil} {
		if names := slices.Sorted(maps.Keys(got.Entries[i].FDs)); !slices.Equal(names, want) {
			t.Errorf("%s keeps %v, want %v", got.Entries[i].ID, names, want)
		}
	}
}
