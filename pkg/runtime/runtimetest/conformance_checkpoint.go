package runtimetest

import (
	"context"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// checkpoints writes a paused container down and makes another of it.
func checkpoints(t *testing.T, s *suite) {
	s.run(t, "a")
	dump := runtime.CheckpointRequest{ID: "a", Spec: s.sleeper(t, "a"), Dir: t.TempDir()}
	restored := runtime.RestoreRequest{CreateRequest: runtime.CreateRequest{ID: "b", PodID: "pod", Spec: s.sleeper(t, "b")}, Dir: dump.Dir}
	wantKind(t, "checkpoint a running container", s.Checkpoint(t.Context(), dump), errs.Conflict)
	if err := s.Pause(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.CanCheckpoint(t.Context()); err != nil {
		wantKind(t, "a node that cannot", err, errs.Unsupported)
		wantKind(t, "checkpoint there", s.Checkpoint(t.Context(), dump), errs.Unsupported)
		_, err := s.Restore(t.Context(), restored)
		wantKind(t, "restore there", err, errs.Unsupported)
		return
	}
	if err := s.Checkpoint(t.Context(), dump); err != nil {
		t.Fatal(err)
	}
	if c, _ := s.find(t, "a"); c.State != runtime.Paused {
		t.Errorf("after the checkpoint: %+v", c)
	}
	if err := s.Resume(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { _ = s.Delete(context.Background(), "b") })
	c, err := s.Restore(t.Context(), restored)
	if err != nil || c.State != runtime.Running || c.PID == 0 || c.StartedAt.IsZero() {
		t.Fatalf("restored: %+v, %v", c, err)
	}
	_, err = s.Restore(t.Context(), restored)
	wantKind(t, "restore twice", err, errs.Exists)
	_, err = s.Start(t.Context(), "b")
	wantKind(t, "start what is restored", err, errs.Conflict)
	unknown := dump
	unknown.ID = "none"
	wantKind(t, "checkpoint an unknown container", s.Checkpoint(t.Context(), unknown), errs.NotFound)
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "b", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if c := s.stopped(t, "b"); c.ExitCode != 137 {
		t.Errorf("killed: %+v", c)
	}
	if err := s.Delete(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}
