package runtimetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// waitLimit bounds each wait of the suite.
const waitLimit = 20 * time.Second

// Run checks that a Runtime keeps the contract. Each test gets its own from
// open; sleeper returns the spec of a process that runs until it is killed and
// has no handler for SIGTERM.
func Run(t *testing.T, open func(*testing.T) runtime.Runtime, sleeper func(t *testing.T, id string) *specs.Spec) {
	for name, test := range map[string]func(*testing.T, *suite){
		"life":          life,
		"wrong state":   wrongState,
		"exec stream":   execStream,
		"unknown id":    unknownID,
		"one id, once":  once,
		"kill":          kill,
		"delete kills":  deleteKills,
		"pods":          pods,
		"events follow": events,
		"checkpoints":   checkpoints,
	} {
		t.Run(name, func(t *testing.T) { test(t, &suite{open(t), sleeper}) })
	}
}

type suite struct {
	runtime.Runtime
	sleeper func(*testing.T, string) *specs.Spec
}

func (s *suite) create(t *testing.T, id string) runtime.Container {
	t.Helper()
	c, err := s.Create(t.Context(), runtime.CreateRequest{ID: id, PodID: "pod", Spec: s.sleeper(t, id)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if err := s.Delete(ctx, id); err != nil && !errors.Is(err, errs.NotFound) {
			t.Error(err)
		}
	})
	return c
}

func (s *suite) run(t *testing.T, id string) runtime.Container {
	t.Helper()
	s.create(t, id)
	c, err := s.Start(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *suite) find(t *testing.T, id string) (runtime.Container, bool) {
	t.Helper()
	all, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.ID == id {
			return c, true
		}
	}
	return runtime.Container{}, false
}

func (s *suite) stopped(t *testing.T, id string) runtime.Container {
	t.Helper()
	for end := time.Now().Add(waitLimit); time.Now().Before(end); {
		if c, _ := s.find(t, id); c.State == runtime.Stopped {
			return c
		}
	}
	t.Fatalf("container %s does not stop", id)
	return runtime.Container{}
}

func wantKind(t *testing.T, what string, err error, kind errs.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got %v, want %v", what, err, kind)
	}
}

func life(t *testing.T, s *suite) {
	c := s.create(t, "a")
	if c.State != runtime.Created || c.PID == 0 || c.PodID != "pod" || c.CreatedAt.IsZero() {
		t.Errorf("created: %+v", c)
	}
	c, err := s.Start(t.Context(), "a")
	if err != nil || c.State != runtime.Running || c.StartedAt.Before(c.CreatedAt) {
		t.Errorf("started: %+v, %v", c, err)
	}
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "a", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	c = s.stopped(t, "a")
	if c.ExitCode != 137 || c.PID != 0 || c.FinishedAt.Before(c.StartedAt) || c.OOMKilled {
		t.Errorf("stopped: %+v", c)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if c, ok := s.find(t, "a"); ok {
		t.Errorf("deleted: %+v", c)
	}
}

func wrongState(t *testing.T, s *suite) {
	s.create(t, "a")
	_, err := s.Exec(t.Context(), runtime.ExecRequest{ID: "a", Process: s.sleeper(t, "a").Process})
	wantKind(t, "exec in a created container", err, errs.Conflict)
	_, err = s.ExecStream(t.Context(), runtime.ExecRequest{ID: "a", Process: s.sleeper(t, "a").Process}, runtime.ExecIO{}, func() {})
	wantKind(t, "stream an exec in a created container", err, errs.Conflict)
	wantKind(t, "pause a created container", s.Pause(t.Context(), "a"), errs.Conflict)
	if _, err := s.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Start(t.Context(), "a")
	wantKind(t, "start twice", err, errs.Conflict)
	wantKind(t, "resume a running container", s.Resume(t.Context(), "a"), errs.Conflict)
	wantKind(t, "resize without a terminal", s.Resize(t.Context(), "a", 80, 24), errs.Conflict)
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "a", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	s.stopped(t, "a")
	_, err = s.Start(t.Context(), "a")
	wantKind(t, "start a stopped container", err, errs.Conflict)
	wantKind(t, "reopen the log of a stopped container", s.ReopenLog(t.Context(), "a"), errs.Conflict)
	wantKind(t, "attach to a stopped container", s.Attach(t.Context(), runtime.AttachRequest{ID: "a"}, runtime.AttachIO{}), errs.Conflict)
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "a", Signal: 15}); err != nil {
		t.Errorf("kill a stopped container: %v", err)
	}
}

func unknownID(t *testing.T, s *suite) {
	_, err := s.Start(t.Context(), "none")
	wantKind(t, "start", err, errs.NotFound)
	wantKind(t, "kill", s.Kill(t.Context(), runtime.KillRequest{ID: "none", Signal: 9}), errs.NotFound)
	wantKind(t, "delete", s.Delete(t.Context(), "none"), errs.NotFound)
	wantKind(t, "update", s.Update(t.Context(), runtime.UpdateRequest{ID: "none"}), errs.NotFound)
	wantKind(t, "reopen", s.ReopenLog(t.Context(), "none"), errs.NotFound)
	_, err = s.Create(t.Context(), runtime.CreateRequest{})
	wantKind(t, "create nothing", err, errs.Invalid)
	if err := s.DeletePod(t.Context(), "none"); err != nil {
		t.Errorf("delete an unknown pod: %v", err)
	}
}

func once(t *testing.T, s *suite) {
	const callers = 4
	spec := s.sleeper(t, "a")
	results := make(chan error, callers)
	for range callers {
		go func() {
			_, err := s.Create(t.Context(), runtime.CreateRequest{ID: "a", Spec: spec})
			results <- err
		}()
	}
	made := 0
	for range callers {
		if err := <-results; err == nil {
			made++
		} else {
			wantKind(t, "create again", err, errs.Exists)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func kill(t *testing.T, s *suite) {
	s.run(t, "a")
	s.run(t, "b")
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "a", Signal: 9, All: true}); err != nil {
		t.Fatal(err)
	}
	if c := s.stopped(t, "a"); c.ExitCode != 137 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	if c, _ := s.find(t, "b"); c.State != runtime.Running {
		t.Errorf("the other container: %+v", c)
	}
}

func deleteKills(t *testing.T, s *suite) {
	s.run(t, "a")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.create(t, "a") // the name is free again
}

func pods(t *testing.T, s *suite) {
	r := runtime.PodRequest{ID: "p"}
	for range 2 {
		if err := s.CreatePod(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	r.Hostname = "other"
	wantKind(t, "another request", s.CreatePod(t.Context(), r), errs.Conflict)
	for range 2 {
		if err := s.DeletePod(t.Context(), "p"); err != nil {
			t.Fatal(err)
		}
	}
}

func events(t *testing.T, s *suite) {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	got := make(chan runtime.Event, 16)
	ended := make(chan error, 1)
	go func() { ended <- s.Events(ctx, func(e runtime.Event) { got <- e }) }()
	if e := <-got; e.Type != runtime.Subscribed {
		t.Fatalf("first event: %+v", e)
	}
	s.run(t, "a")
	if err := s.Kill(t.Context(), runtime.KillRequest{ID: "a", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	e := <-got
	if e.Type != runtime.Exited || e.Container.ID != "a" || e.Container.ExitCode != 137 {
		t.Errorf("got %+v", e)
	}
	if c, _ := s.find(t, "a"); c.State != runtime.Stopped {
		t.Errorf("told before it was recorded: %+v", c)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
