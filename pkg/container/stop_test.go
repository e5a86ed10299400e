package container_test

import (
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
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
