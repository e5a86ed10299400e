package cgroup

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
)

// warmth is for how long nothing has to be done again.
const warmth = 4 * time.Millisecond

// Warm prepares the kernel for somebody who is about to join a cgroup.
//
// Who writes to a cgroup.procs takes cgroup_threadgroup_rwsem for writing, and
// the first to do so after some 15 ms of peace waits for a grace period of RCU:
// 6 to 8 ms on two cores with Linux 6.18, which is a third of all that a
// container's creation takes. So while there is other work to do, this writes
// what changes nothing. With v2 processes are born in their cgroup and nobody
// waits. (The mount option favordynmods is the administrator's way to have none
// of these waits, at a price for every fork.)
//
// It returns at once; one goroutine works until it is done.
func (v *V1) Warm() {
	if !v.Here() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := time.Now(); now.Sub(v.warmed) >= warmth {
		v.warmed = now
		go v.stay()
	}
}

// stay moves this process to the cgroup that it is in. What goes wrong costs
// time, nothing else.
func (v *V1) stay() {
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	if dir, err := directory(v.hierarchies[0], own); err == nil {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
	}
}
