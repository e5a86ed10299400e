package container_test

import (
	"errors"
	"testing"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

func TestStartOfWhatRunsOrHasEnded(t *testing.T) {
	n := newNode(t)
	id := n.started(testConfig("c"))
	if err := n.Start(t.Context(), id); err != nil {
		t.Errorf("repeated Start: %v", err)
	}
	n.runtime.Exit(id, 1, false)
	n.await(id)
	if err := n.Start(t.Context(), id); !errors.Is(err, errs.Conflict) {
		t.Errorf("Start after the end: %v", err)
	}
}

func TestAStartThatFailsIsRecorded(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	var killed container.Status
	n.runtime.Fail = func(verb, _ string) error {
		switch verb {
		case runtime.VerbStart:
			return errs.Invalid
		case runtime.VerbKill:
			killed = n.get(id).Status // whose end is not what is recorded
		}
		return nil
	}
	if err := n.Start(t.Context(), id); !errors.Is(err, errs.Invalid) {
		t.Fatalf("got %v", err)
	}
	for when, st := range map[string]container.Status{"after the failure": n.get(id).Status, "at the kill": killed} {
		if st.State != container.Exited || st.Reason != "StartError" || st.Message == "" {
			t.Errorf("%s: %+v", when, st)
		}
	}
}

func TestAStartThatComesTooLateIsNoStartError(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	n.stop() // the end is not heard
	n.runtime.Exit(id, 137, false)
	if err := n.Start(t.Context(), id); !errors.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
	if st := n.get(id).Status; st.State != container.Exited || st.Reason != "Error" || st.ExitCode != 137 {
		t.Errorf("status %+v", st)
	}
}

func TestAStartWhoseAnswerWasLostIsHeardByTheNext(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	if _, err := n.runtime.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.State != container.Running || st.PID == 0 {
		t.Errorf("status %+v", st)
	}
}
