package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Names of the peer's Daemons.
const (
	Containerd      = "containerd"
	TunedContainerd = "containerd-tuned"
)

// containerdConfig is containerd's default but for its directories, for the
// pause image made here, and for machines without CAP_SYS_RESOURCE.
const containerdConfig = `version = 4
root = %[1]q
state = %[2]q
[plugins."io.containerd.internal.v1.opt"]
  path = %[7]q
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %[3]q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%[4]q]
  conf_dir = %[5]q
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = %[6]q
`

// tuned is what containerd has for large images and does not do by default.
const tuned = `[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 8
  concurrent_layer_fetch_buffer = 8388608
  max_concurrent_unpacks = 4
`

// bare keeps containerd from the faster programs for gzip that are installed here
// and on few nodes.
var bare = []string{"CONTAINERD_DISABLE_PIGZ=1", "CONTAINERD_DISABLE_IGZIP=1"}

// StartContainerd starts containerd with its defaults and imports the images.
func StartContainerd(ctx context.Context, s Settings) (*Daemon, error) {
	return startContainerd(ctx, s, Containerd, "", nil)
}

// StartBareContainerd is StartContainerd on a node without programs for gzip.
func StartBareContainerd(ctx context.Context, s Settings) (*Daemon, error) {
	return startContainerd(ctx, s, Containerd, "", bare)
}

// StartTunedContainerd starts containerd with all that it has for large images.
func StartTunedContainerd(ctx context.Context, s Settings) (*Daemon, error) {
	return startContainerd(ctx, s, TunedContainerd, tuned, nil)
}

func startContainerd(ctx context.Context, s Settings, name, more string, env []string) (*Daemon, error) {
	dir := filepath.Join(s.Dir, name)
	state, cni := "/run/"+name, filepath.Join(dir, "net.d")
	if err := writeConflist(cni, "benchctd0", "10.201.0.0/16", filepath.Join(dir, "ipam")); err != nil {
		return nil, err
	}
	d := &Daemon{Name: name, Socket: filepath.Join(state, "containerd.sock")}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), state, pauseRef,
		filepath.Join(s.Bin, "cni"), cni, filepath.Join(s.Cache, "runc"), filepath.Join(dir, "opt")) + more
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	env = append([]string{"PATH=" + s.Cache + ":" + os.Getenv("PATH")}, env...)
	if err := d.Start(dir, env, filepath.Join(s.Cache, "containerd"), "--config", config, "--address", d.Socket); err != nil {
		return nil, err
	}
	if err := await(ctx, d.Socket, dir); err != nil {
		d.Stop()
		return nil, err
	}
	for _, file := range []string{busyboxArchive(s.Dir), pauseArchive(s.Dir)} {
		c := exec.CommandContext(ctx, filepath.Join(s.Cache, "ctr"), "--address", d.Socket, "--namespace", "k8s.io", "images", "import", file)
		if out, err := c.CombinedOutput(); err != nil {
			d.Stop()
			return nil, fmt.Errorf("import %s: %w: %s", filepath.Base(file), err, out)
		}
	}
	return d, nil
}
