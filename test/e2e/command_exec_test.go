package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestExecOfTheCommand(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "sleep", "1000")
	for want, args := range map[int][]string{
		0: {name, "true"}, 42: {name, "sh", "-c", "exit 42"}, 127: {name, "no-such-program"}, 126: {name, "/etc/passwd"}, 125: {"no-such-container", "true"},
	} {
		if got := try(t, "", append([]string{"exec"}, args...)...); got.code != want {
			t.Errorf("%v: %v", args, got)
		}
	}
	in := make([]byte, 8<<20)
	_, _ = rand.Read(in) // never fails
	c := berth.Command(t.Context(), "exec", "-i", name, "cat")
	c.Stdin = bytes.NewReader(in)
	if out, err := c.Output(); err != nil || !bytes.Equal(out, in) {
		t.Errorf("%d of %d bytes came back, %v", len(out), len(in), err)
	}
	if got := try(t, "", "exec", name, "sh", "-c", "echo out; echo bad >&2; cat"); got.stdout != "out\n" || got.stderr != "bad\n" || got.code != 0 {
		t.Errorf("without -i: %v", got)
	}
}

func TestExecGivesATerminal(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "sleep", "1000")
	c, person, screen, _ := at(t, 33, 77, "exec", "-it", name, "sh")
	wantTerminal(t, person, screen)
	if _, err := person.WriteString("exit 3\n"); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, c.Wait()); code != 3 {
		t.Errorf("exit %d: %s", code, screen.String())
	}
}

func TestKeysDetachFromATerminalThatRunsOn(t *testing.T) {
	name := named(t)
	run, person, screen, _ := at(t, 24, 80, "run", "-it", "--name", name, busybox, "sh")
	if _, err := person.WriteString("echo first $((1+1))\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return wantText(screen.String(), "first 2") })
	if _, err := person.WriteString("\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, run.Wait()); code != 0 {
		t.Errorf("run: exit %d: %s", code, screen.String())
	}
	for n := range 2 {
		attach, person, screen, _ := at(t, 24, 80, "attach", name)
		if _, err := fmt.Fprintf(person, "echo again $((%d+1))\n", n); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return wantText(screen.String(), fmt.Sprint("again ", n+1)) })
		keys, want := "\x10\x11", 0
		if n == 1 {
			keys, want = "exit 7\n", 7
		}
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, attach.Wait()); code != want {
			t.Errorf("attach: exit %d, want %d: %s", code, want, screen.String())
		}
	}
}

func TestPortForwardOfTheCommand(t *testing.T) {
	p := runPod(t, own)
	p.start(server(80, "inside"))
	c := berth.Command(t.Context(), "port-forward", p.id, ":80", ":81")
	said := &lockedBuffer{}
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return wantText(said.String(), " -> 81") })
	first, _, _ := strings.Cut(strings.TrimPrefix(said.String(), "Forwarding from "), " ")
	wantAnswer(t, first, "inside")
	wantAnswer(t, first, "inside")
	_, rest, _ := strings.Cut(said.String(), "\nForwarding from ")
	second, _, _ := strings.Cut(rest, " ")
	if answer, err := ask(second); err == nil {
		t.Errorf("where nobody listens: %q", answer)
	}
	eventually(t, func() error { return wantText(said.String(), "connection refused") })
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, c.Wait()); code != 130 {
		t.Errorf("exit %d: %s", code, said.String())
	}
}

func TestFilesAreCopiedBothWays(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "sleep", "1000")
	dir := t.TempDir()
	big := make([]byte, 5<<20)
	_, _ = rand.Read(big) // never fails
	if err := os.WriteFile(dir+"/big", big, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/tree/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tree/sub/file", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "cp", dir+"/big", name+":/tmp/renamed")
	command(t, "cp", dir+"/tree", name+":/tmp")
	if out := command(t, "exec", name, "cat", "/tmp/tree/sub/file"); out != "text" {
		t.Errorf("in the container: %q", out)
	}
	command(t, "cp", name+":/tmp/renamed", dir+"/back")
	command(t, "cp", name+":/tmp/tree", dir+"/other")
	if got, err := os.ReadFile(dir + "/back"); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if got, err := os.ReadFile(dir + "/other/sub/file"); err != nil || string(got) != "text" {
		t.Errorf("the tree: %q, %v", got, err)
	}
	for want, args := range map[string][]string{
		"No such file": {name + ":/no/such", dir}, "no such file": {dir + "/none", name + ":/tmp"}, "CONTAINER:PATH": {dir, dir}, "tar": {dir + "/big", name + ":/no/such/dir/"},
	} {
		if got := try(t, "", append([]string{"cp"}, args...)...); got.code != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%v: %v", args, got)
		}
	}
}
