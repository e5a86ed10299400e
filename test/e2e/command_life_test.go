package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestAContainerFromRunToRm(t *testing.T) {
	const port = "18301"
	name := named(t)
	id := background(t, name, "-p", port+":8080", "-l", "of=e2e", busybox, "/bin/sh", "-c",
		"mkdir /www; echo one >&2; echo two; echo hello > /www/index.html; exec httpd -f -p [::]:8080 -h /www")
	wantAnswer(t, "127.0.0.1:"+port, "hello")
	if c := listed(t, name); c.ID != id || c.Name != name || c.State != "running" || c.Image != busybox || !strings.Contains(c.Ports, port+"->8080") {
		t.Errorf("ps: %+v", c)
	}
	for _, line := range []string{"CONTAINER ID", id[:12], name, "Up ", "0.0.0.0:" + port} {
		if out := command(t, "ps"); !strings.Contains(out, line) {
			t.Errorf("no %q in %s", line, out)
		}
	}
	if out := command(t, "ps", "-q", "--filter", "label=of=e2e", "--filter", "status=running"); out != id[:12]+"\n" {
		t.Errorf("filtered: %q", out)
	}
	if out := command(t, "pods"); !strings.Contains(out, name) || !strings.Contains(out, "Ready") {
		t.Errorf("pods: %s", out)
	}
	if got := try(t, "", "logs", name); got.stdout != "two\n" || got.stderr != "one\n" {
		t.Errorf("logs: %v", got)
	}
	if got := try(t, "", "exec", name, "/bin/sh", "-c", "echo o; echo e >&2; exit 4"); got != (end{"o\n", "e\n", 4}) {
		t.Errorf("exec: %v", got)
	}
	for _, kind := range []string{"container", "pod"} {
		var s struct{ Status struct{ ID string } }
		decode(t, command(t, "inspect", "--type", kind, name), &s)
		if s.Status.ID == "" || (kind == "container") != (s.Status.ID == id) {
			t.Errorf("inspect %s: %v", kind, s)
		}
	}
	if out := command(t, "inspect", "-o", "yaml", id[:8]); !strings.Contains(out, "id: "+id) {
		t.Errorf("as YAML: %s", out)
	}
	if got := try(t, "", "rm", name); got.code != 1 || !strings.Contains(got.stderr, "-f") && !strings.Contains(got.stderr, "stop") {
		t.Errorf("rm of a running one: %v", got)
	}
	command(t, "stop", "-t", "1", name)
	if c := listed(t, name); c.State != "exited" {
		t.Errorf("after the stop: %+v", c)
	}
	if got, err := ask("127.0.0.1:" + port); err == nil {
		t.Errorf("a stopped one answers %q", got)
	}
	command(t, "rm", name)
	if c := listed(t, name); c.ID != "" || strings.Contains(command(t, "pods"), name) {
		t.Errorf("after rm: %+v", c)
	}
	for _, verb := range []string{"logs", "stop", "rm", "inspect", "kill"} {
		if got := try(t, "", verb, name); got.code == 0 || !strings.Contains(got.stderr, name) {
			t.Errorf("%s of none: %v", verb, got)
		}
	}
}

func TestLogsAreShownAsAsked(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "/bin/sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; while [ ! -e /go ]; do sleep 0.02; done; echo last")
	eventually(t, func() error { return wantText(command(t, "logs", name), "line 5") })
	if out := command(t, "logs", "--tail", "2", name); out != "line 4\nline 5\n" {
		t.Errorf("tail: %q", out)
	}
	if out := command(t, "logs", "-n", "0", name); out != "" {
		t.Errorf("tail of none: %q", out)
	}
	if out := command(t, "logs", "--since", "1h", "--tail", "1", name); out != "line 5\n" {
		t.Errorf("since an hour: %q", out)
	}
	if out := command(t, "logs", "--since", "2100-01-01", name); out != "" {
		t.Errorf("since the future: %q", out)
	}
	if stamp, text, _ := strings.Cut(command(t, "logs", "-t", "-n", "1", name), " "); text != "line 5\n" || !strings.Contains(stamp, "T") {
		t.Errorf("with time: %q %q", stamp, text)
	}
	follow := berth.Command(t.Context(), "logs", "-f", "--tail", "1", name)
	var followed bytes.Buffer
	follow.Stdout = &followed
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	command(t, "exec", name, "touch", "/go")
	if err := follow.Wait(); err != nil || !strings.HasSuffix(followed.String(), "line 5\nlast\n") {
		t.Errorf("followed: %q, %v", followed.String(), err)
	}
}

func TestKillSendsSignals(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "/bin/sh", "-c", "trap 'echo hup' HUP; trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done")
	eventually(t, func() error { return wantText(command(t, "logs", name), "ready") })
	command(t, "kill", "-s", "HUP", name)
	eventually(t, func() error { return wantText(command(t, "logs", name), "hup") })
	command(t, "kill", "-s", "10", name)
	eventually(t, func() error { return wantText(listed(t, name).Status, "Exited (5)") })
	if got := try(t, "", "kill", name); got.code != 1 {
		t.Errorf("kill of an ended one: %v", got)
	}
	other := named(t)
	background(t, other, busybox, "sleep", "1000")
	command(t, "kill", other)
	eventually(t, func() error { return wantText(listed(t, other).Status, "Exited (137)") })
	shown := named(t)
	c := berth.Command(t.Context(), "run", "--rm", "--name", shown, busybox, "sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return wantText(listed(t, shown).State, "running") })
	command(t, "kill", shown)
	if code := exitCode(t, c.Wait()); code != 137 {
		t.Errorf("in the foreground: exit %d", code)
	}
	third := named(t)
	background(t, third, busybox, "sleep", "1000")
	command(t, "rm", "-f", third)
	if c := listed(t, third); c.ID != "" {
		t.Errorf("after rm -f: %+v", c)
	}
}

func TestABackgroundContainerRemovesItselfIfAsked(t *testing.T) {
	name := named(t)
	background(t, name, "--rm", busybox, "sleep", "0.1")
	eventually(t, func() error {
		if c := listed(t, name); c.ID != "" {
			return fmt.Errorf("still there: %+v", c)
		}
		return nil
	})
}

func TestSignalsToTheForegroundAreTheContainers(t *testing.T) {
	name := named(t)
	c := berth.Command(t.Context(), "run", "--rm", "--name", name, busybox, "/bin/sh", "-c", "trap 'echo got it; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
	var out lockedBuffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return wantText(out.String(), "ready") })
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, c.Wait()); code != 6 || out.String() != "ready\ngot it\n" {
		t.Errorf("exit %d, %q", code, out.String())
	}
}
