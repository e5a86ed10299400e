package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// featuresLimit bounds the question to a program what it can do.
const featuresLimit = 5 * time.Second

// commands finds the programs of runtime handlers, each time anew: they come, go
// and change while the daemon runs.
type commands struct {
	config config.Config

	mu    sync.Mutex
	known map[string]known // by path
}

// known is what a program said, and which file that was.
type known struct {
	info fs.FileInfo
	features
}

// features is what OCI's features.json tells that matters here.
type features struct {
	MountOptions []string `json:"mountOptions"`
	Linux        struct {
		Namespaces      []string `json:"namespaces"`
		MountExtensions struct {
			IDMap struct {
				Enabled bool `json:"enabled"`
			} `json:"idmap"`
		} `json:"mountExtensions"`
	} `json:"linux"`
}

var _ container.Commands = (*commands)(nil)

func newCommands(c config.Config) *commands { return &commands{config: c, known: map[string]known{}} }

// Command implements container.Commands.
func (c *commands) Command(ctx context.Context, handler string) (container.Command, error) {
	if handler == "" {
		handler = c.config.Runtime.DefaultHandler
	}
	program := c.config.Runtime.Handlers[handler].Path
	if program == "" {
		return container.Command{}, nil
	}
	path, err := exec.LookPath(program)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return container.Command{}, fmt.Errorf("runtime handler %q: %w: %w", handler, err, errs.Unavailable)
	}
	f := c.features(ctx, path)
	return container.Command{
		Command:           &runtime.Command{Path: path, Root: c.config.StateOf(handler)},
		RecursiveReadOnly: slices.Contains(f.MountOptions, "rro"),
		UserNamespaces:    slices.Contains(f.Linux.Namespaces, "user") && f.Linux.MountExtensions.IDMap.Enabled,
	}, nil
}

// features asks a program once, until its file changes. One that does not know the
// question, such as crun before 1.9, can do what all can.
func (c *commands) features(ctx context.Context, path string) features {
	info, err := os.Stat(path)
	if err != nil {
		return features{}
	}
	c.mu.Lock()
	k, ok := c.known[path]
	c.mu.Unlock()
	if ok && os.SameFile(k.info, info) && k.info.ModTime().Equal(info.ModTime()) && k.info.Size() == info.Size() {
		return k.features
	}
	limited, cancel := context.WithTimeout(ctx, featuresLimit)
	defer cancel()
	k = known{info: info}
	said, err := exec.CommandContext(limited, path, "features").Output()
	if err == nil {
		err = json.Unmarshal(said, &k.features)
	}
	if ctx.Err() != nil {
		return features{} // nothing has been learnt
	}
	if err != nil {
		klog.FromContext(ctx).Info("An OCI runtime does not tell its features: no user namespaces and no recursively read-only mounts with it", "path", path, "err", err)
		k.features = features{}
	}
	c.mu.Lock()
	c.known[path] = k
	c.mu.Unlock()
	return k.features
}

// missing returns the error of each handler whose program is not there.
func (c *commands) missing(ctx context.Context) (list []error) {
	for _, name := range handlerNames(c.config.Runtime) {
		if _, err := c.Command(ctx, name); errors.Is(err, errs.Unavailable) {
			list = append(list, err)
		}
	}
	return list
}
