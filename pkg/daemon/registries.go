package daemon

import (
	"context"

	"golang.org/x/net/http/httpproxy"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/registry/credentials"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

func (s *services) registryOptions(c config.Config) registry.Options {
	o := registry.Options{
		UserAgent: "berth/" + s.o.Version, StallTimeout: c.Image.StallTimeout.Duration, StallRate: c.Image.StallRate,
		Hosts: hostsOptions(c), AuthFiles: c.Image.AuthFiles,
	}
	if len(o.AuthFiles) == 0 {
		o.AuthFiles = credentials.Defaults()
	}
	if p := c.Image.Proxy; p != (config.Proxy{}) {
		o.Proxy = &httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: p.No}
	}
	return o
}

func hostsOptions(c config.Config) hosts.Options {
	return hosts.Options{CertsDirs: c.Image.CertsDirs, RegistriesConf: c.Image.RegistriesConf, PlainHTTP: c.Image.PlainHTTP}
}

// checkRegistries tells of files about registries that are wrong. Pulls from those
// that they are about will say so too, and nothing else is touched.
func checkRegistries(ctx context.Context, c config.Config) {
	if err := hosts.New(hostsOptions(c)).Check(); err != nil {
		klog.FromContext(ctx).Error(err, "Files about registries are wrong: pulls that need them fail")
	}
}
