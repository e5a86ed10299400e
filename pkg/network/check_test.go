package network

import (
	"path/filepath"
	"testing"
	"time"
)

func TestCheckMendsWhatACrashLeft(t *testing.T) {
	host(t)
	s := openTypical(t)
	req := pod(newNetNS(t), "a")
	if _, err := s.Attach(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	keep := pod(newNetNS(t), "keep")
	attach(t, s, keep)
	cut := *s.records.Get("a") // as if the process had died before ADD came back
	cut.Phase, cut.Attachments = phaseAdding, append([]attachment(nil), cut.Attachments...)
	cut.Attachments[0].Result = nil
	cut.CreatedAt = cut.CreatedAt.Add(-time.Hour)
	if err := s.store(&cut); err != nil {
		t.Fatal(err)
	}
	restarted := open(t, s.opts)
	problems, err := restarted.Check(t.Context(), []string{"a", "keep"}, false)
	if err != nil || len(problems) != 1 || problems[0].Object != "a" || problems[0].Repaired {
		t.Fatalf("got %+v, %v", problems, err)
	}
	problems, err = restarted.Check(t.Context(), []string{"a", "keep"}, true)
	if err != nil || len(problems) != 1 || !problems[0].Repaired {
		t.Fatalf("got %+v, %v", problems, err)
	}
	if problems, err = restarted.Check(t.Context(), []string{"keep"}, true); err != nil || len(problems) != 0 {
		t.Fatalf("after repair: %+v, %v", problems, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Root, "ipam", "typical", "10.*")); len(left) != 1 {
		t.Errorf("addresses: %v", left)
	}
}

func TestCheckCollectsWhatNoRecordKnows(t *testing.T) {
	host(t)
	s := openTypical(t)
	if _, err := s.Attach(t.Context(), pod(newNetNS(t), "lost")); err != nil {
		t.Fatal(err)
	}
	attach(t, s, pod("", "kept"))
	if err := s.forget("lost"); err != nil { // as after a power cut
		t.Fatal(err)
	}
	if problems, err := s.Check(t.Context(), []string{"kept"}, true); err != nil || len(problems) != 0 {
		t.Fatalf("got %+v, %v", problems, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Root, "ipam", "typical", "10.*")); len(left) != 1 {
		t.Errorf("addresses: %v", left)
	}
}
