package supervisor

import (
	"os/exec"
	"testing"

	"github.com/berth-run/berth/pkg/internal/pidfd"
)

// TestAnEndBeforeTheWordOfItIsJournalled has the worker's message about a process
// read after its end, which a short-lived one comes to where a command made it.
func TestAnEndBeforeTheWordOfItIsJournalled(t *testing.T) {
	o := testOptions(t.TempDir())
	if err := o.makeDirs(); err != nil {
		t.Fatal(err)
	}
	a := &anchor{o: &o, store: store{}}
	child := exec.Command("/bin/sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	begun, err := pidfd.Begun(pid)
	if err != nil {
		t.Fatal(err)
	}
	a.bury(pid, 7)
	_ = child.Process.Kill()
	_ = child.Wait()
	for range maxStrangers - 1 {
		a.strangers = append(a.strangers, obituary{PID: pid, Begun: begun + 1, Exit: 9})
	}
	id := execEntry("c", "e")
	a.apply(&message{Op: opPut, ID: id, PID: pid + 1, Begun: begun})
	if _, ok := journalled(o.journal(id), pid, begun); ok {
		t.Error("another process has the journal's entry")
	}
	a.apply(&message{Op: opPut, ID: id, PID: pid, Begun: begun})
	if exit, ok := journalled(o.journal(id), pid, begun); !ok || exit != 7 {
		t.Errorf("exit %d, %t", exit, ok)
	}
	a.apply(&message{Op: opDrop, ID: id})
	if _, ok := journalled(o.journal(id), pid, begun); ok {
		t.Error("the journal has an exec that is over")
	}
}

func TestStrangersAreForgottenInTime(t *testing.T) {
	o := testOptions(t.TempDir())
	a := &anchor{o: &o, store: store{}}
	child := exec.Command("/bin/sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxStrangers {
		a.bury(child.Process.Pid, 0)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if n := len(a.strangers); n != maxStrangers {
		t.Errorf("%d are remembered", n)
	}
}
