package main

import "testing"

func TestARunThatDoesNotBeginEndsAsAShellHasIt(t *testing.T) {
	d := startDaemon(t)
	for word, want := range map[string]int{"missing": 127, "odd": 126, "broken": 125} {
		for _, flags := range [][]string{{"run"}, {"run", "-d"}, {"run", "-i"}} {
			if code, out, errOut := d.berth(t, "", append(flags, "-q", "busybox", word)...); code != want || out != "" || errOut == "" {
				t.Errorf("%v %s: %d, %q, %q", flags, word, code, out, errOut)
			}
		}
	}
	if len(d.pods) != 0 {
		t.Errorf("%d pods are left", len(d.pods))
	}
}
