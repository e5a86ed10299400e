package stdio

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDrainBeforeRunLeavesTheBatchOfAnotherAlone(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenPump(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	configs, kept := map[string]Config{}, map[string]map[string]int{}
	for _, id := range []string{"a", "b"} {
		cfg := Config{ID: id, Dir: filepath.Join(dir, id), LogPath: filepath.Join(dir, id+".log")}
		if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := first.Prepare(cfg)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(s.child.Stdout, id+" one\n"+id+" two\n")
		configs[id], kept[id] = cfg, s.FDs()
		if id == "b" { // whose lines are in the log, and still in the FIFO
			first.slot.begin(&batch{id: id, stream: 1, size: 12, at: time.Now()})
			first.slot.set(slotTaking)
		}
	}
	next, err := OpenPump(dir, first.Stage())
	if err != nil {
		t.Fatal(err)
	}
	a, err := next.Restore(configs["a"], kept["a"])
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan bool)
	go func() { a.Drain(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(50 * time.Millisecond): // it waits for Run, as it should
	}
	b, err := next.Restore(configs["b"], kept["b"])
	if err != nil {
		t.Fatal(err)
	}
	next.Run()
	defer next.Close()
	<-drained
	b.Drain()
	equal(t, texts(t, configs["a"].LogPath), "stdout F a one", "stdout F a two")
	equal(t, texts(t, configs["b"].LogPath))
	a.Close()
	b.Close()
}
