package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// maxConfBytes bounds a configuration file.
const maxConfBytes = 1 << 20

// configuration is what ConfDir held when it was last read. It does not change.
type configuration struct {
	networks []network
	broken   map[string]error // by file
	err      error            // why the directory could not be read
}

// network is one network that pods are attached to.
type network struct {
	file string // where it was read; empty for the built-in one
	list *libcni.NetworkConfigList
}

// reload reads ConfDir and puts what it finds into use. A network whose file
// has become broken stays in use as it was, until the file is mended or goes.
func (s *Service) reload(ctx context.Context) {
	old := s.conf.Load()
	next := readConfDir(s.opts.ConfDir, s.opts.MaxConfNum, old)
	s.conf.Store(next)
	s.status.forget()
	log := klog.FromContext(ctx)
	for file, err := range next.broken {
		log.Error(err, "CNI configuration is broken", "file", file)
	}
	for _, n := range next.networks {
		log.V(2).Info("CNI configuration in use", "file", n.file, "network", n.list.Name)
	}
}

func readConfDir(dir string, limit int, old *configuration) *configuration {
	c := &configuration{broken: map[string]error{}}
	files, err := libcni.ConfFiles(dir, []string{".conflist", ".conf", ".json"})
	if err != nil {
		c.err = fmt.Errorf("read CNI configurations: %w", err)
		if old != nil {
			c.networks = old.networks
		}
		return c
	}
	slices.Sort(files)
	for _, file := range files {
		if len(c.networks) == limit {
			break
		}
		list, err := readConf(file)
		switch {
		case err != nil:
			c.broken[file] = err
			if n := old.network(file); n != nil {
				c.networks = append(c.networks, *n)
			}
		case !onlyLoopback(list):
			c.networks = append(c.networks, network{file, list})
		}
	}
	return c
}

func (c *configuration) network(file string) *network {
	if c == nil {
		return nil
	}
	for i := range c.networks {
		if c.networks[i].file == file {
			return &c.networks[i]
		}
	}
	return nil
}

// onlyLoopback says that a configuration is for the loopback interface, which
// needs none here and makes no pod network.
func onlyLoopback(list *libcni.NetworkConfigList) bool {
	return !slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Type != "loopback" })
}

func readConf(file string) (*libcni.NetworkConfigList, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(data) > maxConfBytes {
		return nil, fmt.Errorf("read %s: over %d bytes: %w", file, maxConfBytes, errs.Invalid)
	}
	list, err := parseConf(data, strings.HasSuffix(file, ".conflist"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if list, err = withPluginDir(list, filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// parseConf decodes a list of plugins or, where isList is false, one plugin,
// which becomes a list of itself.
func parseConf(data []byte, isList bool) (*libcni.NetworkConfigList, error) {
	var list *libcni.NetworkConfigList
	var err error
	if isList {
		list, err = libcni.NetworkConfFromBytes(data)
	} else {
		var one *libcni.PluginConfig
		if one, err = libcni.NetworkPluginConfFromBytes(data); err == nil {
			list, err = libcni.ConfListFromConf(one) //nolint:staticcheck // plain .conf files are read as long as libcni reads them
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	for _, p := range list.Plugins {
		if strings.ContainsRune(p.Network.Type, filepath.Separator) {
			return nil, fmt.Errorf("plugin type %q: %w", p.Network.Type, errs.Invalid)
		}
	}
	return list, nil
}

// withPluginDir adds the plugins that lie in a directory of the network's name
// (CNI 1.1). The list then holds all of them in its bytes, since DEL must not
// depend on files that may have changed.
func withPluginDir(list *libcni.NetworkConfigList, dir string) (*libcni.NetworkConfigList, error) {
	if !list.LoadOnlyInlinedPlugins {
		more, err := libcni.NetworkPluginConfsFromFiles(dir, list.Name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errs.Invalid, err)
		}
		list.Plugins = append(list.Plugins, more...)
		if len(more) > 0 {
			if list.Bytes, err = inlined(list); err != nil {
				return nil, err
			}
		}
	}
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("network %s has no plugin: %w", list.Name, errs.Invalid)
	}
	return list, nil
}

func inlined(list *libcni.NetworkConfigList) ([]byte, error) {
	var whole map[string]any
	if err := json.Unmarshal(list.Bytes, &whole); err != nil {
		return nil, err
	}
	plugins := make([]json.RawMessage, 0, len(list.Plugins))
	for _, p := range list.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	whole["plugins"], whole["loadOnlyInlinedPlugins"] = plugins, true
	return json.Marshal(whole)
}

// reason says in words why there is no network, or is nil.
func (c *configuration) reason(dir string) error {
	if len(c.networks) > 0 {
		return nil
	}
	if c.err != nil {
		return c.err
	}
	var all []error
	for _, err := range c.broken {
		all = append(all, err)
	}
	if len(all) == 0 {
		return fmt.Errorf("no CNI configuration in %s: %w", dir, errs.Unavailable)
	}
	return fmt.Errorf("no usable CNI configuration in %s: %w: %w", dir, errs.Unavailable, errors.Join(all...))
}
