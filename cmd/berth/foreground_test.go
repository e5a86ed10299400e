package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRunOutlivesADaemon(t *testing.T) {
	for _, interactive := range []bool{false, true} {
		d := startDaemon(t)
		d.waits = make(chan string, 8)
		ended := make(chan int, 1)
		var errOut string
		go func() {
			args := []string{"run", "--rm", "-q", "busybox", "sleep", "1d"}
			if interactive {
				args = slices.Insert(args, 1, "-t")
			}
			var code int
			code, _, errOut = d.berth(t, "", args...)
			ended <- code
		}()
		id := <-d.waits
		d.stop()
		for len(d.waits) > 0 { // the log's too
			<-d.waits
		}
		stop := d.serve(t)
		<-d.waits
		d.mu.Lock()
		if len(d.pods) != 1 {
			t.Error("a container that runs was removed")
		}
		d.containers[id].end(9)
		d.mu.Unlock()
		if code := <-ended; code != 9 || len(d.pods) != 0 || errOut != "" {
			t.Errorf("exit %d, %d pods are left, %q", code, len(d.pods), errOut)
		}
		stop()
	}
}

func TestRunDiscardsNothingThatMayRun(t *testing.T) {
	d := startDaemon(t)
	d.waitError = errors.New("disk is gone")
	code, _, errOut := d.berth(t, "", "run", "--rm", "-q", "busybox", "sleep", "1d")
	if code != 125 || len(d.pods) != 1 || !strings.Contains(errOut, "may run on: disk is gone") {
		t.Errorf("exit %d, %d pods are left, %q", code, len(d.pods), errOut)
	}
}
