package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/stdio"
)

// recordVersion is raised when an older berth-runtime could not read a record.
const recordVersion = 1

// record is what is on disk about one container.
type record struct {
	Version   int               `json:"version"`
	Container runtime.Container `json:"container"`
	// Begun is the start time of the first process in clock ticks since boot;
	// with the pid it names the process for ever.
	Begun uint64 `json:"begun"`
	// Starting is set before Engine.Start: a worker that finds it repeats the
	// call, which may or may not have happened.
	Starting bool `json:"starting,omitempty"`
	// SharedPID says that the PID namespace is not the container's own: the
	// kernel does not end the others with its first process.
	SharedPID bool         `json:"sharedPid,omitempty"`
	Stdio     stdio.Config `json:"stdio"`
}

// container is an entry of the worker's table.
type container struct {
	dir    string
	stdio  *stdio.Stdio // nil once a worker has found the container stopped
	pidfd  int          // -1 where there is none
	handle *os.File     // owns pidfd
	exited chan struct{}
	rec    atomic.Pointer[record]

	mu sync.Mutex // orders updates of rec and its file
}

// own takes over a pidfd. It is not copied, which fails where descriptors have
// run out.
func (c *container) own(f *os.File) { c.handle, c.pidfd = f, int(f.Fd()) }

func (c *container) get() runtime.Container { return c.rec.Load().Container }
func (c *container) id() string             { return c.rec.Load().Container.ID }

const recordName = "container.json"

// update changes the record: on disk, then in memory. Where change returns an
// error nothing happens.
func (c *container) update(change func(*record) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.rec.Load()
	if err := change(&next); err != nil {
		return err
	}
	if err := statefile.Write(filepath.Join(c.dir, recordName), &next); err != nil {
		return err
	}
	c.rec.Store(&next)
	return nil
}

// checkID refuses ids that could not be the name of a directory.
func checkID(id string) error {
	ok := len(id) > 0 && len(id) <= 128 && id[0] != '.'
	for _, r := range id {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return fmt.Errorf("id %q: %w", id, errs.Invalid)
	}
	return nil
}
