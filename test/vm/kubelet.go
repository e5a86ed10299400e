package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Kubelet builds the kubelet of the release that CRI's module is of, and keeps it in
// the cache directory: some minutes, once.
func Kubelet(ctx context.Context, cache string) (string, error) {
	var cri struct{ Version string }
	if err := module(ctx, "list", &cri, "-m", "-json", "k8s.io/cri-api"); err != nil {
		return "", err
	}
	staging, version := cri.Version, "v1"+strings.TrimPrefix(cri.Version, "v0")
	dir := filepath.Join(cache, "kubelet-"+version)
	program := filepath.Join(dir, "kubelet")
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	var kubernetes struct{ Dir string }
	if err := module(ctx, "mod", &kubernetes, "download", "-json", "k8s.io/kubernetes@"+version); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := kubeletModule(kubernetes.Dir, dir, version, staging); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program+".new", "k8s.io/kubernetes/cmd/kubelet")
	build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kubelet: %w\n%s", err, tail(out, 20))
	}
	return program, os.Rename(program+".new", program)
}

var (
	moduleLine = regexp.MustCompile(`(?m)^module .*$`)
	stagedPath = regexp.MustCompile(`=> \./staging/src/(\S+)`)
)

// kubeletModule makes a module in dir that needs Kubernetes and all that Kubernetes
// does. What lies beside it in its repository are modules of the same release.
func kubeletModule(kubernetes, dir, version, staging string) error {
	mod, err := os.ReadFile(filepath.Join(kubernetes, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(kubernetes, "go.sum"))
	if err != nil {
		return err
	}
	mod = moduleLine.ReplaceAll(mod, []byte("module kubelet"))
	mod = stagedPath.ReplaceAll(mod, []byte("=> $1 "+staging))
	mod = append(mod, "\nrequire k8s.io/kubernetes "+version+"\n"...)
	return errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o644), os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644))
}

// module asks the go command something that it answers in JSON.
func module(ctx context.Context, command string, to any, args ...string) error {
	c := exec.CommandContext(ctx, "go", append([]string{command}, args...)...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err == nil {
		err = json.Unmarshal(out, to)
	}
	if err != nil {
		return fmt.Errorf("go %s %s: %w\n%s", command, strings.Join(args, " "), err, said.Bytes())
	}
	return nil
}
