package host

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (f *Facts) probeMounts() {
	f.Overlay = hasFilesystem("overlay")
	f.RecursiveReadOnly = hasMountSetattr()
	f.UserNamespaces = hasUserNamespaces()
	// Both came with mount_setattr; a user namespace is needed to map by.
	f.IDMapMounts = f.RecursiveReadOnly && f.UserNamespaces
	f.OverlayIDMap = f.IDMapMounts && f.Kernel.AtLeast(5, 19)
	// PIDFD_INFO_EXIT cannot be asked for without an ended child.
	f.PidfdExitInfo = f.Kernel.AtLeast(6, 15)
}

// hasFilesystem opens a file system context (Linux 5.2), which also loads the
// module where it is one; older kernels list what is loaded.
func hasFilesystem(name string) bool {
	fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd) // a context that nothing was done with
		return true
	}
	for line := range strings.Lines(read("/proc/filesystems")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}

// hasMountSetattr calls mount_setattr (Linux 5.12) with a size of 0, which the
// kernel refuses before it looks at anything else.
func hasMountSetattr() bool {
	_, _, errno := unix.Syscall6(unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0, 0, 0, 0)
	return !errors.Is(errno, unix.ENOSYS) && !errors.Is(errno, unix.EPERM)
}

func hasUserNamespaces() bool {
	if !exists("/proc/self/ns/user") {
		return false
	}
	n, err := strconv.Atoi(read("/proc/sys/user/max_user_namespaces"))
	return err != nil || n > 0
}

func (f *Facts) probeSecurity() {
	// The file lists the actions that the kernel knows (Linux 4.14).
	f.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")
	f.AppArmor = strings.HasPrefix(read("/sys/module/apparmor/parameters/enabled"), "Y") &&
		exists("/sys/kernel/security/apparmor")
	f.SELinux = exists("/sys/fs/selinux/enforce")
}

// AppArmorLoaded tells whether the kernel has a profile of that name now.
func AppArmorLoaded(name string) bool {
	return profileIn(read("/sys/kernel/security/apparmor/profiles"), name)
}

// profileIn looks for a name in lines such as "name (enforce)".
func profileIn(profiles, name string) bool {
	return strings.Contains("\n"+profiles, "\n"+name+" (")
}

func (f *Facts) probeProcess() {
	f.Capabilities = heldCapabilities(read("/proc/self/status"))
	f.OOMScoreAdjMin = -1000
	if !f.HasCapability("CAP_SYS_RESOURCE") {
		f.OOMScoreAdjMin, _ = strconv.Atoi(read("/proc/self/oom_score_adj"))
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		f.MaxOpenFiles = lim.Max
	}
}

// ReadFile reads a whole file of at most limit bytes.
func (System) ReadFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAll(file, limit)
}
