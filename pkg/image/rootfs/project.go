package rootfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// projects gives each writable directory a project of its own, by which ext4 and
// XFS count what is in it, where they were mounted so (prjquota). There are no
// limits: kubelet has those, and only wants to know.
//
// A container without a user namespace may give its files to another project. So
// ids are drawn by chance, that no container knows whom to give them to, and Roots
// looks now and then whether one has. XFS keeps a record of each id that was ever
// used: those of containers that are gone are used again.
type projects struct {
	dir *os.File // in the file system; nil where that does not count

	mu   sync.Mutex
	free []uint32 // were used, and are not, or not for long any more
}

// The ids that are ours. Others use small numbers, as /etc/projid and kubelet do.
const (
	firstProject = 1 << 30
	lastProject  = 1<<31 - 1
	maxDraws     = 100
)

// openProjects finds out whether the file system counts, by trying.
func openProjects(writable string) (*projects, error) {
	dir, err := os.Open(writable)
	if err != nil {
		return nil, err
	}
	p := &projects{dir: dir}
	probe, err := os.MkdirTemp(writable, trashPrefix+"probe-")
	if err != nil {
		return p, p.close() // a full disk counts nothing new
	}
	defer func() { _ = os.Remove(probe) }() // or the next start sweeps it
	id, err := p.assign(probe)
	if err != nil {
		return p, p.close()
	}
	if q, err := p.quota(getQuota, id); err != nil || q.inodes == 0 {
		return p, p.close()
	}
	p.free = p.unused() // without the probe's, which release adds
	p.release(id)
	return p, nil
}

func (p *projects) close() error {
	if p.dir == nil {
		return nil
	}
	dir := p.dir
	p.dir = nil
	return dir.Close()
}

// unused returns the ids that have a record and no directory. The last files of one
// may still be on their way out.
func (p *projects) unused() (all []uint32) {
	used := map[uint32]bool{}
	names, _ := p.dir.Readdirnames(-1) // one that is missed counts something
	for _, name := range names {
		used[p.of(filepath.Join(p.dir.Name(), name))] = true
	}
	for id := uint32(firstProject); id <= lastProject; id++ {
		q, err := p.quota(getNextQuota, id)
		if err != nil || q.id < id || q.id > lastProject {
			break // the last one, or a file system that cannot tell
		}
		if id = q.id; !used[id] {
			all = append(all, id)
		}
	}
	return all
}

// assign gives a directory, in which there is nothing yet, a project that nobody
// has. All that comes into being in there is of it.
func (p *projects) assign(dir string) (uint32, error) {
	if p.dir == nil {
		return 0, unix.EOPNOTSUPP
	}
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	id, err := p.takeLocked()
	if err != nil {
		return 0, err
	}
	var a attributes
	if err := a.ioctl(f, getAttributes); err != nil {
		return 0, err
	}
	if a.flags&inherit != 0 { // the administrator's project, from which nothing may be taken
		return 0, unix.EXDEV
	}
	a.project, a.flags = id, a.flags|inherit
	return id, a.ioctl(f, setAttributes)
}

// takeLocked returns an id that counts nothing.
func (p *projects) takeLocked() (uint32, error) {
	for i, id := range p.free {
		if q, err := p.quota(getQuota, id); err == nil && q.inodes == 0 {
			p.free = append(p.free[:i], p.free[i+1:]...)
			return id, nil
		}
	}
	for range maxDraws {
		id := firstProject + rand.Uint32N(lastProject-firstProject+1)
		q, err := p.quota(getQuota, id)
		if errors.Is(err, unix.ENOENT) || err == nil && q.inodes == 0 {
			return id, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("none of %d projects is free", maxDraws)
}

// of returns the project of a directory, or 0.
func (p *projects) of(dir string) uint32 {
	if p.dir == nil {
		return 0
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	var a attributes
	if a.ioctl(f, getAttributes) != nil || a.project < firstProject || a.project > lastProject {
		return 0
	}
	return a.project
}

// release takes an id back. Its last files may still be on their way out.
func (p *projects) release(id uint32) {
	if id == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, id)
}

// usage returns what a container has written of what is in its directory: what we
// and overlay have made there is not. It is false where that is not counted.
func (p *projects) usage(dir string) (Usage, bool) {
	id := p.of(dir)
	if id == 0 || p.of(filepath.Join(dir, upperDir)) != id { // the container can reach the second
		return Usage{}, false
	}
	q, err := p.quota(getQuota, id)
	if err != nil {
		return Usage{}, false
	}
	u := Usage{Bytes: q.space, Inodes: q.inodes}
	for _, name := range []string{"", rootFile, upperDir, workDir, filepath.Join(workDir, workDir)} {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, name), &st) == nil {
			u.Bytes -= min(u.Bytes, uint64(st.Blocks)*512)
			u.Inodes -= min(u.Inodes, 1)
		}
	}
	return u, true
}

// dqblk is the kernel's if_dqblk, and if_nextdqblk.
type dqblk struct {
	_      [2]uint64 // limits
	space  uint64    // bytes, those that wait to be written too
	_      [2]uint64
	inodes uint64
	_      [2]uint64
	_, id  uint32
}

// The commands of quotactl_fd(2), Linux 5.14, for projects.
const (
	getQuota     = 0x800007<<8 | 2
	getNextQuota = 0x800009<<8 | 2
)

func (p *projects) quota(command int, id uint32) (dqblk, error) {
	var q dqblk
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, p.dir.Fd(), uintptr(command), uintptr(id), uintptr(unsafe.Pointer(&q)), 0, 0)
	if errno != 0 {
		return q, errno
	}
	return q, nil
}

// attributes are the kernel's fsxattr.
type attributes struct {
	flags   uint32
	_       [2]uint32
	project uint32
	_       [3]uint32
}

const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit       = 0x200      // FS_XFLAG_PROJINHERIT
)

func (a *attributes) ioctl(f *os.File, request uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))); errno != 0 {
		return errno
	}
	return nil
}
