package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The peer, as its users have it.
const (
	containerdVersion = "v2.4.2"
	runcVersion       = "v1.5.2"
)

// peerProgram is one program of the peer: a Go package at a version.
type peerProgram struct {
	name, pkg, version string
	args               []string
	cgo                string
}

var peerPrograms = []peerProgram{
	{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd", version: containerdVersion, cgo: "0"},
	{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", version: containerdVersion, cgo: "0"},
	{name: "ctr", pkg: "github.com/containerd/containerd/v2/cmd/ctr", version: containerdVersion, cgo: "0"},
	{name: "runc", pkg: "github.com/opencontainers/runc", version: runcVersion, args: []string{"-tags", "seccomp"}, cgo: "1"},
}

// install builds the peer's programs into dir/VERSION-of-each, once.
func install(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range peerPrograms {
		stamp := filepath.Join(dir, "."+p.name+"-"+p.version)
		if _, err := os.Stat(stamp); err == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "installing %s %s\n", p.name, p.version)
		c := exec.CommandContext(ctx, "go", append(append([]string{"install", "-ldflags", "-s -w"}, p.args...), p.pkg+"@"+p.version)...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED="+p.cgo)
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("install %s@%s: %w", p.pkg, p.version, err)
		}
		if err := os.WriteFile(stamp, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
