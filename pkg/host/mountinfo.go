package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// Propagation is how mounts below a mount point travel between namespaces.
type Propagation struct {
	// MountPoint is the mount that the path lies on.
	MountPoint string
	// Shared: mounts made below it are seen by its peers.
	Shared bool
	// Slave: it sees what its master mounts.
	Slave bool
}

// Propagation returns the propagation of the mount that path lies on. Symbolic
// links are followed.
func (System) Propagation(path string) (Propagation, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Propagation{}, fmt.Errorf("propagation of %s: %w", path, kindOf(err))
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, real, 0, unix.STATX_MNT_ID, &st); err != nil {
		return Propagation{}, fmt.Errorf("propagation of %s: %w", path, err)
	}
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Propagation{}, err
	}
	defer file.Close()
	return findPropagation(file, st.Mnt_id, real)
}

// findPropagation takes the mount with the id that statx gave (Linux 5.8), or
// without one the deepest, last mount over path.
func findPropagation(mountinfo io.Reader, id uint64, path string) (Propagation, error) {
	var best Propagation
	want := fmt.Sprint(id)
	scan := bufio.NewScanner(mountinfo)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 7 {
			continue
		}
		p := parsePropagation(fields)
		if id != 0 && fields[0] == want {
			return p, nil
		}
		if covers(p.MountPoint, path) && len(p.MountPoint) >= len(best.MountPoint) {
			best = p
		}
	}
	if err := scan.Err(); err != nil {
		return Propagation{}, err
	}
	if best.MountPoint == "" {
		return best, fmt.Errorf("mount of %s: %w", path, errs.NotFound)
	}
	return best, nil
}

// parsePropagation reads one line of proc_pid_mountinfo(5): the optional
// fields begin at the seventh and end at a hyphen.
func parsePropagation(fields []string) Propagation {
	p := Propagation{MountPoint: unescape(fields[4])}
	for _, f := range fields[6:] {
		if f == "-" {
			break
		}
		p.Shared = p.Shared || strings.HasPrefix(f, "shared:")
		p.Slave = p.Slave || strings.HasPrefix(f, "master:")
	}
	return p
}

func covers(mountPoint, path string) bool {
	return mountPoint == "/" || mountPoint == path || strings.HasPrefix(path, mountPoint+"/")
}

// unescape undoes the kernel's octal escapes of space, tab, newline, backslash.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
