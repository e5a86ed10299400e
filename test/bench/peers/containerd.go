package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const containerdName = "containerd"

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

// startContainerd starts containerd and imports the images.
func startContainerd(ctx context.Context, s settings, images imageFiles) (*daemon, error) {
	dir := filepath.Join(s.Dir, containerdName)
	state, cni := "/run/containerd", filepath.Join(dir, "net.d")
	if err := writeConflist(cni, "benchctd0", "10.201.0.0/16", filepath.Join(dir, "ipam")); err != nil {
		return nil, err
	}
	d := &daemon{Name: containerdName, Socket: filepath.Join(state, "containerd.sock")}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), state, pauseRef,
		filepath.Join(s.Bin, "cni"), cni, filepath.Join(s.Cache, "runc"), filepath.Join(dir, "opt"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	env := []string{"PATH=" + s.Cache + ":" + os.Getenv("PATH")}
	if err := d.Start(dir, env, filepath.Join(s.Cache, "containerd"), "--config", config); err != nil {
		return nil, err
	}
	if err := await(ctx, d.Socket, dir); err != nil {
		d.Stop()
		return nil, err
	}
	for _, file := range []string{images.Busybox, images.Pause} {
		c := exec.CommandContext(ctx, filepath.Join(s.Cache, "ctr"), "--address", d.Socket, "--namespace", "k8s.io", "images", "import", file)
		if out, err := c.CombinedOutput(); err != nil {
			d.Stop()
			return nil, fmt.Errorf("import %s: %w: %s", filepath.Base(file), err, out)
		}
	}
	return d, nil
}
