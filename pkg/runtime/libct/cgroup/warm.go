package cgroup

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Whoever writes to a cgroup.procs of v1 takes cgroup_threadgroup_rwsem for
// writing. The first to do so after some 15 ms of peace waits for a grace period
// of RCU, 6 to 8 ms on two cores with Linux 6.18, and holds cgroup_mutex all the
// while, so that nobody can make a cgroup either: a third of all that a
// container's creation takes. There is no wait for who comes before the peace. So
// from the first sign of a container on, and for a second after each, what changes
// nothing is written now and then.
//
// With v2 processes are born in their cgroup, and nobody waits. The mount option
// favordynmods is the administrator's way to the same, for good and at the same
// price: forks and exits take a slower path meanwhile.
const (
	warmFor   = time.Second
	warmEvery = 4 * time.Millisecond // 20 µs of work: half a percent of one core
)

// Warm keeps the kernel ready for who joins a cgroup, for a second. It returns at
// once; a goroutine works, of which there is one at most, and ends by itself.
func (v *V1) Warm() {
	if !v.Here() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.warmUntil = time.Now().Add(warmFor)
	if !v.warming {
		v.warming = true
		go v.warm()
	}
}

func (v *V1) warm() {
	tick := time.NewTicker(warmEvery)
	defer tick.Stop()
	procs, err := v.openOwn()
	if err == nil {
		defer procs.Close()
	}
	for v.warmer(err == nil) {
		_, err = unix.Write(int(procs.Fd()), []byte("0")) // we stay where we are
		<-tick.C
	}
}

// warmer reports whether to go on. Where we cannot, all just takes longer.
func (v *V1) warmer(works bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.warming = works && time.Now().Before(v.warmUntil)
	return v.warming
}

// openOwn opens the list of processes of the cgroup that we are in.
func (v *V1) openOwn() (*os.File, error) {
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	dir, err := directory(v.hierarchies[0], own)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
}
