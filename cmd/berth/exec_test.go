package main

import "testing"

func TestExecPassesStreamsAndTellsWhyNot(t *testing.T) {
	d := startDaemon(t)
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	if code, out, errOut := d.berth(t, "hello\n", "exec", "-i", "web", "cat", "-"); code != 3 || out != "cat -\nhello\n" || errOut != "oh\n" {
		t.Errorf("with stdin: %d, %q, %q", code, out, errOut)
	}
	if code, out, errOut := d.berth(t, "", "exec", "--timeout", "5", "web", "ls"); code != 3 || out != "ls\n" || errOut != "oh\n" {
		t.Errorf("with a timeout: %d, %q, %q", code, out, errOut)
	}
	for want, args := range map[int][]string{
		127: {"web", "missing"}, 126: {"web", "odd"}, 125: {"nowhere", "ls"},
	} {
		for _, flags := range [][]string{{"exec"}, {"exec", "--timeout", "5"}} {
			if code, out, errOut := d.berth(t, "", append(flags, args...)...); code != want || out != "" || errOut == "" {
				t.Errorf("%v %v: %d, %q, %q", flags, args, code, out, errOut)
			}
		}
	}
	if code, _, _ := d.berth(t, "", "exec", "-i", "--timeout", "5", "web", "ls"); code != 125 {
		t.Errorf("-i with a timeout: %d", code)
	}
}

func TestPortsToForward(t *testing.T) {
	for text, want := range map[string][2]uint16{"8080:80": {8080, 80}, "80": {80, 80}, ":80": {0, 80}, "0:80": {0, 80}} {
		if local, remote, err := parsePorts(text); err != nil || [2]uint16{local, remote} != want {
			t.Errorf("%s: %d, %d, %v", text, local, remote, err)
		}
	}
	for _, text := range []string{"", "0", "80:", "x:80", "80:0", "70000:80", "1:2:3", "-1:80"} {
		if _, _, err := parsePorts(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
