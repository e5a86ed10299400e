package network

import (
	"fmt"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/network/native"
	"github.com/berth-run/berth/pkg/network/plugin"
)

// newExec returns what runs plugins: in process where that makes no difference,
// as processes otherwise.
func newExec() *native.Exec { return &native.Exec{Exec: &plugin.Exec{}} }

// plugins run the plugins of networks.
type plugins struct {
	installed *libcni.CNIConfig
	bundled   *libcni.CNIConfig // those of the built-in network need not be installed
}

// of returns what runs the plugins of a network. Pods of the built-in one may be
// there without it, after a restart, and are detached all the same.
func (p *plugins) of(network string) *libcni.CNIConfig {
	if network == builtinName {
		return p.bundled
	}
	return p.installed
}

// findPlugins fails where a plugin of the network is neither installed in one of
// dirs nor built in: the DEL that it cannot answer would keep a pod half attached.
// For limits of bandwidth that plugin has to be installed.
func findPlugins(e *native.Exec, n network, dirs []string, limits bool) error {
	for _, p := range n.list.Plugins {
		var exec invoke.Exec = e
		if n.list.Name == builtinName && !(limits && p.Network.Type == bandwidthCapability) {
			exec = e.Bundled()
		}
		if _, err := exec.FindInPath(p.Network.Type, dirs); err != nil {
			return fmt.Errorf("network %s: %w: %w", n.list.Name, errs.Unavailable, err)
		}
	}
	return nil
}
