package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

// events writes what version 2 counts in a cgroup.
func events(t *testing.T, dir string, kills int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.events"), fmt.Appendf(nil, "oom 9\noom_kill %d\noom_group_kill 0\n", kills), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKillsOfACgroupThatIsGoneAreCounted(t *testing.T) {
	slice := filepath.Join(t.TempDir(), "pod.slice")
	a, b, other := slice+"/a.scope", slice+"/b.scope", slice+"/other"
	events(t, slice, 5) // two of other, three of what was there before
	events(t, other, 2)
	events(t, a, 0)
	events(t, b, 0)
	var k Kills
	want := func(dir string, want int) {
		t.Helper()
		if got, err := k.Of(dir); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", filepath.Base(dir), got, err, want)
		}
	}
	k.Add(a)
	k.Add(b)
	want(a, 0)
	events(t, slice, 7)
	events(t, b, 2)
	want(b, 2)
	events(t, slice, 8) // and it goes
	mustRemove(t, a)
	want(a, 1)
	want(a, 1)
	mustRemove(t, b)
	want(b, 2)
	k.Drop(a)
	c := slice + "/c.scope"
	k.Add(c) // never seen
	want(c, 0)
	events(t, slice, 10)
	want(c, 2)
	mustRemove(t, slice)
	if _, err := k.Of(c); !errors.Is(err, errs.NotFound) {
		t.Errorf("gone with all above: %v", err)
	}
	k.Drop(b)
	k.Drop(c)
	if len(k.above) != 0 {
		t.Errorf("still known: %v", k.above)
	}
	if _, err := k.Of(c); !errors.Is(err, errs.NotFound) {
		t.Errorf("not added: %v", err)
	}
}

func mustRemove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}
