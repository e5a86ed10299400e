package container_test

import (
	"context"
	"errors"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

func TestStopKillsAfterGrace(t *testing.T) {
	n := newNode(t)
	n.runtime.IgnoreTerm = true
	id := n.started(testConfig("c"))
	begin := time.Now()
	if err := n.Stop(t.Context(), id, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("killed after %s, before the grace period", took)
	}
	if st := n.get(id).Status; st.State != container.Exited || st.ExitCode != 137 {
		t.Errorf("after Stop: %+v", st)
	}
	if err := n.Stop(t.Context(), id, time.Hour); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestASecondStopMayBeLessPatient(t *testing.T) {
	n := newNode(t)
	n.runtime.IgnoreTerm = true
	id := n.started(testConfig("c"))
	first := make(chan error, 1)
	go func() { first <- n.Stop(t.Context(), id, time.Hour) }()
	if err := n.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Errorf("the patient one: %v", err)
	}
}

func TestStopUsesTheImagesSignal(t *testing.T) {
	n := newNode(t)
	n.images.config.StopSignal = "SIGRTMIN+3"
	id := n.started(testConfig("c"))
	if got := n.get(id).StopSignal; got != cri.Signal_SIGNAL_SIGRTMINPLUS3 {
		t.Errorf("stop signal %s", got)
	}
}

func TestARepeatedStopSendsTheSignalOnce(t *testing.T) {
	n := newNode(t)
	n.runtime.IgnoreTerm = true
	id := n.started(testConfig("c"))
	for range 2 { // kubelet restarts, and asks again
		impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := n.Stop(impatient, id, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	if err := n.Stop(t.Context(), id, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if got := n.signals(id); got != 2 {
		t.Errorf("%d signals, want SIGTERM and SIGKILL", got)
	}
}

// signals counts those that the runtime was asked to send.
func (n *node) signals(id string) (sent int) {
	for _, call := range n.runtime.Calls() {
		if call == runtime.VerbKill+" "+id {
			sent++
		}
	}
	return sent
}

func TestAStopWhoseSignalWasNotSentIsRepeatedInFull(t *testing.T) {
	n := newNode(t)
	id := n.started(testConfig("c"))
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbKill {
			return errs.Unavailable
		}
		return nil
	}
	if err := n.Stop(t.Context(), id, time.Hour); !errors.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	n.runtime.Fail = nil
	if err := n.Stop(t.Context(), id, time.Hour); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.ExitCode != 143 {
		t.Errorf("after Stop: %+v", st)
	}
}

func TestStopLeavesWhatHasNotStarted(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	for _, grace := range []time.Duration{0, time.Hour} {
		if err := n.Stop(t.Context(), id, grace); err != nil {
			t.Fatal(err)
		}
	}
	if st := n.get(id).Status; st.State != container.Created {
		t.Errorf("after Stop: %+v", st)
	}
	if err := n.Start(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestKillEndsWhatHasNotStarted(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	for range 2 {
		if err := n.Kill(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if st := n.get(id).Status; st.State != container.Exited || st.ExitCode != 137 {
		t.Errorf("after Kill: %+v", st)
	}
}

func TestStopEndsWhatIsBeingStarted(t *testing.T) {
	n := newNode(t)
	starting, goOn := make(chan struct{}), make(chan struct{})
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbStart {
			close(starting)
			<-goOn
		}
		return nil
	}
	id := n.create(testConfig("c"))
	started, stopped := make(chan error, 1), make(chan error, 1)
	go func() { started <- n.Start(t.Context(), id) }()
	<-starting
	go func() { stopped <- n.Stop(t.Context(), id, 0) }()
	close(goOn)
	if err := errors.Join(<-started, <-stopped); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.State != container.Exited || st.StartedAt.IsZero() {
		t.Errorf("after both: %+v", st)
	}
}

func TestStopEndsWhatRunsUnheard(t *testing.T) {
	n := newNode(t)
	id := n.create(testConfig("c"))
	if _, err := n.runtime.Start(t.Context(), id); err != nil { // an answer was lost
		t.Fatal(err)
	}
	if err := n.Stop(t.Context(), id, time.Hour); err != nil {
		t.Fatal(err)
	}
	if st := n.get(id).Status; st.State != container.Exited || st.ExitCode != 143 {
		t.Errorf("after Stop: %+v", st)
	}
}
