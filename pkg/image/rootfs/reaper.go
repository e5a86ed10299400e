package rootfs

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gather is how long the reaper waits for more to finish at one go: the sync that
// ends each batch slows down those who start containers meanwhile.
const gather = 100 * time.Millisecond

// reaper finishes unmounts in one goroutine. Its queue is bounded: when it is
// full, the caller does the work itself.
type reaper struct {
	jobs    chan job
	closing chan struct{}
	done    sync.WaitGroup
}

// job is what is left of a root file system.
type job struct {
	mount int    // descriptor of a detached mount, or -1
	trash string // directory to remove, or ""
}

func (r *reaper) start() {
	r.jobs, r.closing = make(chan job, 256), make(chan struct{})
	r.done.Go(func() {
		for j := range r.jobs {
			select {
			case <-time.After(gather):
			case <-r.closing:
			}
			finish(r.with(j))
		}
	})
}

// with returns j and what else is waiting.
func (r *reaper) with(j job) []job {
	batch := []job{j}
	for {
		select {
		case more, ok := <-r.jobs:
			if !ok {
				return batch
			}
			batch = append(batch, more)
		default:
			return batch
		}
	}
}

func (r *reaper) stop() {
	close(r.closing)
	close(r.jobs)
	r.done.Wait()
}

func (r *reaper) add(j job) {
	if j.mount < 0 && j.trash == "" {
		return
	}
	select {
	case r.jobs <- j:
	default:
		finish([]job{j})
	}
}

// finish removes the files of all before it lets go of any mount: the last to do
// so waits for a sync of the whole file system, which then has less to write, and
// nothing for all mounts but the first. Nobody sees these overlays any more.
func finish(batch []job) {
	for _, j := range batch {
		if j.trash != "" {
			_ = os.RemoveAll(j.trash) // the next start sweeps what stays
		}
	}
	for _, j := range batch {
		if j.mount >= 0 {
			_ = unix.Close(j.mount)
		}
	}
}
