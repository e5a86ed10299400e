package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// command runs the berth command, which has to succeed, and returns its output.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := berth.Berth(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// end is how a command has ended.
type end struct {
	stdout, stderr string
	code           int
}

// String implements fmt.Stringer.
func (e end) String() string {
	return fmt.Sprintf("exit %d, stdout %q, stderr %q", e.code, e.stdout, e.stderr)
}

// try runs the berth command with some stdin.
func try(t *testing.T, stdin string, args ...string) end {
	t.Helper()
	c := berth.Command(t.Context(), args...)
	var stdout, stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &stdout, &stderr
	return end{code: exitCode(t, c.Run()), stdout: stdout.String(), stderr: stderr.String()}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// named makes a name for a container, which is removed at the test's end where
// it is still there.
func named(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("command%d", podNumber.Add(1))
	t.Cleanup(func() {
		for id := range strings.FieldsSeq(command0("ps", "-aq", "--filter", "pod="+name)) {
			if out := command0("rm", "-f", id); !strings.Contains(out, id) {
				t.Error(out)
			}
		}
	})
	return name
}

// command0 runs the berth command after the test's context has ended.
func command0(args ...string) string {
	c := exec.Command(filepath.Join(os.Getenv("BERTH_BIN"), "berth"), append([]string{"--host", "unix://" + berth.Socket()}, args...)...)
	out, _ := c.CombinedOutput() // says what is wrong
	return string(out)
}

// background runs the script in a container of that name.
func background(t *testing.T, name string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(command(t, append([]string{"run", "-d", "--name", name}, args...)...))
}

// listed is what ps tells of a container, and nothing of one that is not there.
func listed(t *testing.T, name string) (c struct{ ID, Name, Pod, Image, Command, State, Status, Ports string }) {
	t.Helper()
	list := []json.RawMessage{}
	decode(t, command(t, "ps", "-a", "-o", "json", "--filter", "pod="+name), &list)
	if len(list) > 0 {
		decode(t, string(list[0]), &c)
	}
	return c
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func TestTheDaemonTellsOfItself(t *testing.T) {
	var v struct{ Client, Daemon, Runtime, CRI string }
	decode(t, command(t, "version", "-o", "json"), &v)
	if v.Client == "" || v.Daemon != v.Client || v.Runtime != v.Client || v.CRI != "v1" {
		t.Errorf("version: %+v", v)
	}
	out := command(t, "info")
	for _, want := range []string{"berthd:", "RuntimeReady:", "NetworkReady:", "yes"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if out := command(t, "check"); out != "Everything fits together.\n" {
		t.Errorf("check: %q", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := command(t, "completion", shell); !strings.Contains(out, "berth") {
			t.Errorf("completion for %s: %q", shell, out)
		}
	}
	name := named(t)
	background(t, name, busybox, "sleep", "1000")
	if out := command(t, "__complete", "stop", ""); !strings.Contains(out, name) {
		t.Errorf("completion of a name: %q", out)
	}
}

func TestWithoutADaemonTheCommandSaysWhatToDo(t *testing.T) {
	for name, args := range map[string][]string{
		"flag":    {"--host", "unix:///run/no-such-daemon.sock", "ps"},
		"version": {"--host", "unix:///run/no-such-daemon.sock", "version"},
	} {
		got := try(t, "", args...)
		text := got.stdout + got.stderr
		if (got.code == 0) != (name == "version") || !strings.Contains(text, "/run/no-such-daemon.sock") || !strings.Contains(text, "berthd") {
			t.Errorf("%s: %v", name, got)
		}
	}
	c := berth.Command(t.Context(), "--host", "unix://"+berth.Socket(), "ps")
	c.Env = append(c.Env, "BERTH_HOST=unix:///run/no-such-daemon.sock")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("the flag does not win: %s", out)
	}
}
