package daemon

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/nri"
	"github.com/berth-run/berth/pkg/pod"
)

// openPlugins prepares for NRI plugins, or returns nil where they are not wanted: a
// standalone daemon leaves the node's directories alone.
func openPlugins(o Options, facts host.Facts, devices *cdi.Registry) (*nri.Service, error) {
	c := o.Config.NRI
	if c.Enable == "off" || c.Enable == "auto" && o.Standalone {
		return nil, nil
	}
	return nri.New(nri.Options{
		Version: o.Version, Socket: c.SocketPath, Plugins: c.PluginPath, Configs: c.PluginConfigPath,
		RegistrationTimeout: c.PluginRegistrationTimeout.Duration, RequestTimeout: c.PluginRequestTimeout.Duration,
		Validator: nri.Validator(c.DefaultValidator), Host: facts, Devices: devices,
	})
}

// podPlugins and containerPlugins are what pods and containers tell; nil: nobody.
func podPlugins(n *nri.Service) pod.Plugins {
	if n == nil {
		return nil
	}
	return n.Pods()
}

func containerPlugins(n *nri.Service) container.Plugins {
	if n == nil {
		return nil
	}
	return n.Containers()
}

// startPlugins lets plugins in. Pods run without them, unless the configuration
// says what plugins must not do.
func startPlugins(life context.Context, s *services, running *sync.WaitGroup) error {
	if s.plugins == nil {
		return nil
	}
	running.Go(func() { _ = s.plugins.Run(life) }) // nil always
	err := s.plugins.Start(nri.Node{Pods: s.pods, Containers: s.containers, Images: s.images})
	if err == nil {
		return nil
	}
	if s.o.Config.NRI.DefaultValidator.Enable {
		return fmt.Errorf("nri.default_validator could not be heard: %w", err)
	}
	klog.FromContext(life).Error(err, "Pods go on without NRI plugins")
	return nil
}
