package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Berth is the name of its Daemon.
const Berth = "berth"

// berthConfig is Berth's default but for what differs from machine to machine.
const berthConfig = `[network]
conf_dir = %q
bin_dirs = [%q]
`

// StartBerth starts berth-runtime and berthd and loads the image.
func StartBerth(ctx context.Context, s Settings) (*Daemon, error) {
	dir := filepath.Join(s.Dir, Berth)
	state, cni := "/run/berth", filepath.Join(dir, "net.d")
	if err := writeConflist(cni, "benchberth0", "10.202.0.0/16", filepath.Join(dir, "ipam")); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "berth.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, berthConfig, cni, filepath.Join(s.Bin, "cni")), 0o644); err != nil {
		return nil, err
	}
	d := &Daemon{Name: Berth, Socket: filepath.Join(state, "berth.sock")}
	if err := d.Start(dir, nil, filepath.Join(s.Bin, "berth-runtime"), "--state", state); err != nil {
		return nil, err
	}
	if err := await(ctx, filepath.Join(state, "runtime.sock"), dir); err != nil {
		d.Stop()
		return nil, err
	}
	if err := d.Start(dir, nil, filepath.Join(s.Bin, "berthd"), "--config", config, "--root", filepath.Join(dir, "root"), "--state", state); err != nil {
		d.Stop()
		return nil, err
	}
	if err := await(ctx, d.Socket, dir); err != nil {
		d.Stop()
		return nil, err
	}
	c := exec.CommandContext(ctx, filepath.Join(s.Bin, "berth"), "--host", "unix://"+d.Socket, "load", "--input", busyboxArchive(s.Dir))
	if out, err := c.CombinedOutput(); err != nil {
		d.Stop()
		return nil, fmt.Errorf("load %s: %w: %s", filepath.Base(busyboxArchive(s.Dir)), err, out)
	}
	return d, nil
}
