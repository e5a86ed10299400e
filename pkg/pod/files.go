package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/internal/resolv"
	"github.com/berth-run/berth/pkg/spec"
)

// shmBytes is the size of a pod's /dev/shm that everybody expects. A pod that
// needs more mounts a volume there.
const shmBytes = 64 << 20

// writeFiles makes what the pod's containers share beside namespaces, all but
// the hosts file, which needs the pod's addresses.
func (s *Service) writeFiles(p *Sandbox) error {
	if spec.NamespaceModes(p.Config, nil).IPC != cri.NamespaceMode_NODE {
		if err := s.mountShm(p); err != nil {
			return err
		}
	}
	if err := os.WriteFile(s.file(p.ID, "hostname"), []byte(hostname(p)+"\n"), 0o644); err != nil {
		return err
	}
	resolv := spec.ResolvConf(p.Config.GetDnsConfig())
	if resolv == nil { // the node's own
		var err error
		if resolv, err = nodeResolvConf(p.Config); err != nil {
			return err
		}
	}
	return os.WriteFile(s.file(p.ID, "resolv.conf"), resolv, 0o644)
}

// nodeResolvConf is the node's own, as far as the pod's network reaches.
func nodeResolvConf(c *cri.PodSandboxConfig) ([]byte, error) {
	if networkMode(c) == cri.NamespaceMode_NODE {
		return resolv.Node()
	}
	return resolv.Pod()
}

// mountShm mounts the pod's /dev/shm, which belongs to the root of its user
// namespace.
func (s *Service) mountShm(p *Sandbox) error {
	path := s.file(p.ID, "shm")
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=1777,size=%d", shmBytes)
	uid, gid, userns, err := spec.UserNamespace(p.Config)
	if err != nil {
		return err
	}
	if userns {
		options += fmt.Sprintf(",uid=%d,gid=%d", uid[0].HostID, gid[0].HostID)
	}
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: path, Err: err}
	}
	return nil
}

// writeHosts writes the hosts file: the node's with the host's network.
func (s *Service) writeHosts(p *Sandbox) error {
	data := spec.Hosts(hostname(p), p.IPs)
	if networkMode(p.Config) == cri.NamespaceMode_NODE {
		node, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		data = node
	}
	return os.WriteFile(s.file(p.ID, "hosts"), data, 0o644)
}

// forContainer is what a container of the pod is given.
func (s *Service) forContainer(p *Sandbox) container.Pod {
	c := container.Pod{
		ID: p.ID, Config: p.Config, Handler: p.Handler, Namespaces: p.namespaces, Shm: "/dev/shm", UTSName: hostname(p),
		ResolvConf: s.file(p.ID, "resolv.conf"), Hosts: s.file(p.ID, "hosts"), Hostname: s.file(p.ID, "hostname"), CgroupParent: cgroupParent(p, s.d.CgroupDriver),
	}
	if spec.NamespaceModes(p.Config, nil).IPC != cri.NamespaceMode_NODE {
		c.Shm = s.file(p.ID, "shm")
	}
	if _, err := os.Stat(c.Hostname); err != nil {
		c.Hostname = "" // pods on the host's network that earlier builds made have none
	}
	return c
}

// removeFiles removes the pod's directory and what berth-runtime may not have
// known to be pinned there. It works on any remainder.
func (s *Service) removeFiles(id string) error {
	paths := []string{s.file(id, "shm"), s.netns(id)}
	for _, kind := range []string{"user", "uts", "ipc", "pid"} {
		paths = append(paths, s.pin(id, kind))
	}
	for _, path := range paths {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
	if err := os.Remove(s.netns(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(s.stateDir(id))
}
