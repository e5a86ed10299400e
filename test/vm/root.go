package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a root file system with its kernel, made from Debian's packages and
// kept in a cache directory: the first time takes a minute, the next none.
type Root struct {
	// Suite is Debian's code name.
	Suite string
	// Packages are installed with what they depend on.
	Packages []string
}

// Debian is the root file system that machines boot where nothing else is asked
// for: systemd, Debian's kernel for clouds, and what Berth needs of a host.
func Debian(more ...string) Root {
	return Root{Suite: "trixie", Packages: append([]string{
		"systemd", "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "e2fsprogs",
		"iproute2", "iptables", "nftables", "procps", "busybox-static", "ca-certificates", "apparmor",
	}, more...)}
}

// initScript is PID 1 of a machine without systemd: it makes what systemd would,
// as far as Berth needs it, in a second instead of thirty.
const initScript = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o ro /dev/vdb /tools
ip link set lo up
modprobe virtio_net
ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
while :; do /tools/agent; done
`

// agentUnit starts the agent where systemd is PID 1.
const agentUnit = `[Unit]
After=systemd-udev-settle.service
Wants=systemd-udev-settle.service
[Service]
ExecStartPre=/bin/sh -c "mount -o ro /dev/vdb /tools; modprobe virtio_net; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; true"
ExecStart=/tools/agent
Restart=always
KillMode=process
Delegate=yes
[Install]
WantedBy=multi-user.target
`

// arguments are mmdebstrap's: what the machine is made of depends on nothing else.
func (r Root) arguments() []string {
	put := func(path, content string, mode string) string {
		return fmt.Sprintf("--customize-hook=mkdir -p \"$1\"/%s && cat > \"$1\"/%s <<'EOF' && chmod %s \"$1\"/%s\n%sEOF\n", filepath.Dir(path), path, mode, path, content)
	}
	return []string{
		"--quiet", "--mode=root", "--variant=minbase", "--include=" + strings.Join(r.Packages, ","),
		`--aptopt=APT::Install-Recommends "false"`, "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		// The initial RAM disk holds what leads to the root disk and no more: it is
		// inflated by an emulated processor.
		`--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" && printf 'MODULES=list\nCOMPRESS=zstd\n' > "$1/etc/initramfs-tools/conf.d/vm" && printf 'virtio_pci\nvirtio_blk\next4\n' > "$1/etc/initramfs-tools/modules"`,
		put("usr/local/sbin/vm-init", initScript, "755"),
		put("etc/systemd/system/vm-agent.service", agentUnit, "644"),
		`--customize-hook=mkdir -p "$1/tools" && ln -s ../vm-agent.service "$1/etc/systemd/system/multi-user.target.wants/vm-agent.service" && echo vm > "$1/etc/hostname" && : > "$1/etc/fstab"`,
		// An emulated processor would compile a hundred profiles before all else.
		`--customize-hook=ln -sf /dev/null "$1/etc/systemd/system/apparmor.service"`,
		r.Suite,
	}
}

// Files are a root file system that has been made.
type Files struct{ Disk, Kernel, Initrd string }

// Make makes the root file system where the cache does not hold it yet, and needs
// root and a Debian mirror to do so.
func (r Root) Make(ctx context.Context, cache string) (Files, error) {
	sum := sha256.Sum256([]byte(strings.Join(r.arguments(), "\x00")))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", r.Suite, sum[:6]))
	f := Files{Disk: filepath.Join(dir, "root.img"), Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd")}
	unlock, err := lock(cache)
	if err != nil {
		return f, err
	}
	defer unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	temp, err := os.MkdirTemp(cache, ".unfinished-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	tree := filepath.Join(temp, "tree")
	if err := command(ctx, "mmdebstrap", append(r.arguments(), tree)...); err != nil {
		return f, err
	}
	for pattern, to := range map[string]string{"boot/vmlinuz-*": f.Kernel, "boot/initrd.img-*": f.Initrd} {
		found, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil || len(found) != 1 {
			return f, fmt.Errorf("%s: %d files, %w", pattern, len(found), err)
		}
		if err := os.Rename(found[0], filepath.Join(temp, filepath.Base(to))); err != nil {
			return f, err
		}
	}
	if err := MakeDisk(ctx, filepath.Join(temp, "root.img"), 2<<30, tree); err != nil {
		return f, err
	}
	if err := os.RemoveAll(tree); err != nil {
		return f, err
	}
	return f, os.Rename(temp, dir)
}

// lock makes the cache directory, and keeps others from making what is made there.
func lock(cache string) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// MakeDisk makes an ext4 disk image with what is below tree, or empty where that
// is "". The file is sparse.
func MakeDisk(ctx context.Context, path string, size int64, tree string) error {
	args := []string{"-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"}
	if tree != "" {
		args = append(args, "-d", tree)
	}
	return command(ctx, "mkfs.ext4", append(args, path, fmt.Sprintf("%dk", size>>10))...)
}

func command(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", name)); err == nil {
		c.Path, c.Err = path, nil
	}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, tail(out, 20))
	}
	return nil
}

// tail returns the last lines of a long text.
func tail(text []byte, lines int) []byte {
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], []byte("\n"))
}
