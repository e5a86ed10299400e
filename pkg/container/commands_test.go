package container_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/runtime"
)

// fakeCommands has a program for the handler "berth".
type fakeCommands struct{ by *container.Command }

func (f fakeCommands) Command(_ context.Context, handler string) (container.Command, error) {
	switch {
	case handler == "":
		return container.Command{}, nil
	case f.by == nil:
		return container.Command{}, fmt.Errorf("no program: %w", errs.Unavailable)
	}
	return *f.by, nil
}

func TestTheHandlersProgramMakesTheContainer(t *testing.T) {
	n := newNode(t)
	by := &runtime.Command{Path: "/bin/crun", Root: "/run/crun"}
	n.commands = fakeCommands{&container.Command{Command: by}}
	n.restart()
	p := testPod()
	p.Handler = "berth"
	id, err := n.Create(t.Context(), p, testConfig("by"))
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := n.runtime.Request(id); !cmp.Equal(r.Command, by) {
		t.Errorf("asked for %+v", r.Command)
	}
	if r, _ := n.runtime.Request(n.create(testConfig("builtin"))); r.Command != nil {
		t.Errorf("the default handler's is made by %+v", r.Command)
	}
}

func TestAProgramLowersWhatTheHostCan(t *testing.T) {
	all := host.Facts{RecursiveReadOnly: true, UserNamespaces: true, IDMapMounts: true, OverlayIDMap: true}
	crun := &runtime.Command{Path: "/bin/crun"}
	for _, c := range []struct {
		by          container.Command
		rro, userns bool
	}{
		{container.Command{}, true, true},
		{container.Command{Command: crun}, false, false},
		{container.Command{Command: crun, RecursiveReadOnly: true}, true, false},
		{container.Command{Command: crun, UserNamespaces: true}, false, true},
	} {
		got := c.by.Lower(all)
		if got.RecursiveReadOnly != c.rro || got.UserNamespacePods() != c.userns || got.IDMapMounts != c.userns {
			t.Errorf("%+v: %+v", c.by, got)
		}
		if none := c.by.Lower(host.Facts{}); none.RecursiveReadOnly || none.UserNamespaces || none.IDMapMounts {
			t.Errorf("%+v: raised to %+v", c.by, none)
		}
	}
}

func TestAContainerWaitsForItsProgram(t *testing.T) {
	n := newNode(t)
	n.commands = fakeCommands{}
	n.restart()
	p := testPod()
	p.Handler = "berth"
	if _, err := n.Create(t.Context(), p, testConfig("c")); !errors.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	n.commands = fakeCommands{&container.Command{Command: &runtime.Command{Path: "/bin/crun", Root: "/run/crun"}}}
	n.restart()
	if _, err := n.Create(t.Context(), p, testConfig("c")); err != nil {
		t.Error(err)
	}
}
