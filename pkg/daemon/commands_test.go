package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
)

// program writes a script that answers as an OCI runtime's features verb does.
func program(t *testing.T, path, answer string) {
	t.Helper()
	// Renamed into place: a file that is open for writing cannot be executed.
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\ntest \"$1\" = features || exit 1\n"+answer+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestAHandlersProgramMayComeAndChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crun")
	c := config.Default()
	c.State = "/run/state"
	c.Runtime.Handlers["crun"] = config.Handler{Path: path}
	c.Runtime.Handlers["other"] = config.Handler{Path: path, Root: "/run/other"}
	commands := newCommands(c)
	if by, err := commands.Command(t.Context(), ""); err != nil || by.Command != nil {
		t.Errorf("the built-in one: %+v, %v", by, err)
	}
	if _, err := commands.Command(t.Context(), "crun"); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("a program that is not there: %v", err)
	}
	if got := commands.missing(t.Context()); len(got) != 2 {
		t.Errorf("missing: %v", got)
	}
	facts := host.Facts{RecursiveReadOnly: true, UserNamespaces: true, IDMapMounts: true, OverlayIDMap: true}
	if all := reportedHandlers(t.Context(), commands, facts); all[2].Name != "crun" || all[2].Err == nil || all[2].UserNamespaces || all[1].Err != nil {
		t.Errorf("reported: %+v", all)
	}
	for _, step := range []struct {
		answer      string
		rro, userns bool
	}{
		{"exit 1", false, false},
		{"echo nonsense", false, false},
		{`echo '{"mountOptions":["ro","rro"],"linux":{"namespaces":["pid","user"]}}'`, true, false},
		{`echo '{"mountOptions":["ro","rro"],"linux":{"namespaces":["pid","user"],"mountExtensions":{"idmap":{"enabled":true}}}}'`, true, true},
	} {
		program(t, path, step.answer)
		by, err := commands.Command(t.Context(), "crun")
		if err != nil || by.Path != path || by.Root != "/run/state/oci/crun" || by.RecursiveReadOnly != step.rro || by.UserNamespaces != step.userns {
			t.Errorf("%s: %+v, %v", step.answer, by, err)
		}
		if got := reportedHandlers(t.Context(), commands, facts)[2]; got.RecursiveReadOnly != step.rro || got.UserNamespaces != step.userns || got.Err != nil {
			t.Errorf("%s: reported %+v", step.answer, got)
		}
	}
	if by, err := commands.Command(t.Context(), "other"); err != nil || by.Root != "/run/other" {
		t.Errorf("a root of its own: %+v, %v", by, err)
	}
}
