package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// reapLimit bounds how long the exit code of another's child is waited for.
const reapLimit = 5 * time.Second

// exitCode learns how the process behind fd has ended: as its parent, else
// from the kernel, else from the anchor's journal. It reaps nothing: until the
// exit is on disk the dead process is its only record, which the anchor takes
// over should this worker die.
func exitCode(fd int, journal string, pid int, since uint64) int32 {
	for wait := 100 * time.Microsecond; wait < reapLimit; wait *= 2 {
		exit, err := pidfd.Look(fd)
		if err == nil {
			return exit
		}
		if exit, ok := pidfd.Recall(fd); ok {
			return exit
		}
		if exit, ok := journalled(journal, pid, since); ok {
			return exit
		}
		time.Sleep(wait)
	}
	return pidfd.Unknown
}

// obituary is an entry of the exit journal.
type obituary struct {
	PID   int    `json:"pid"`
	Begun uint64 `json:"begun"`
	Exit  int32  `json:"exit"`
}

func journalled(path string, pid int, since uint64) (exit int32, ok bool) {
	var o obituary
	if err := statefile.Read(path, &o); err != nil || o.PID != pid || o.Begun != since {
		return pidfd.Unknown, false
	}
	return o.Exit, true
}

// forget removes a container's entry of the journal.
func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (o *Options) journal(id string) string { return filepath.Join(o.dir(), "exits", id) }
