package daemon

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/cri"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/spec"
)

// handlerNames returns the runtime handlers that pods may ask for.
func handlerNames(c config.Runtime) []string {
	return slices.Sorted(maps.Keys(c.Handlers))
}

// handlerOptions returns the settings of each handler; "" is the default one.
func handlerOptions(c config.Runtime, driver string) map[string]spec.Options {
	all := map[string]spec.Options{}
	confined := appArmorProfile(c.AppArmorProfile, host.AppArmorLoaded)
	for name, h := range c.Handlers {
		o := spec.Options{
			CgroupDriver: driver, Capabilities: c.DefaultCapabilities, SeccompUnset: cmp.Or(h.SeccompProfile, c.SeccompProfile),
			AppArmorProfile: confined, PidsLimit: c.PidsLimit, OOMScoreAdjMin: c.OOMScoreAdjMin,
			Annotations: h.Annotations, PrivilegedWithoutHostDevices: h.PrivilegedWithoutHostDevices,
		}
		for _, limit := range slices.Sorted(maps.Keys(c.DefaultUlimits)) {
			o.Limit(limit, c.DefaultUlimits[limit].Soft, c.DefaultUlimits[limit].Hard)
		}
		all[name] = o
	}
	all[""] = all[c.DefaultHandler]
	return all
}

// directoryHandlers are those whose containers need layers as directories.
func directoryHandlers(c config.Runtime) map[string]bool {
	all := map[string]bool{}
	for name, h := range c.Handlers {
		all[name] = h.LayerBackend == string(layer.Directory)
	}
	all[""] = all[c.DefaultHandler]
	return all
}

// defaultProfile is what contrib/apparmor has.
const defaultProfile = "berth-default"

// appArmorProfile decides what "auto" means.
func appArmorProfile(configured string, loaded func(name string) bool) string {
	switch {
	case configured != "auto":
		return configured
	case loaded(defaultProfile):
		return defaultProfile
	}
	return ""
}

// reportedHandlers is what Status tells of them.
func reportedHandlers(ctx context.Context, c *commands, facts host.Facts) []cri.Handler {
	var out []cri.Handler
	for _, name := range append([]string{""}, handlerNames(c.config.Runtime)...) {
		by, err := c.Command(ctx, name)
		able := by.Lower(facts)
		out = append(out, cri.Handler{
			Name: name, RecursiveReadOnly: err == nil && able.RecursiveReadOnly, UserNamespaces: err == nil && able.UserNamespacePods(), Err: err,
		})
	}
	return out
}

// cgroupDriver decides what "auto" means. berth-runtime, which acts on it, is
// asked first; it decides in the same way.
func cgroupDriver(configured, runtimes string, facts host.Facts) string {
	switch {
	case configured != "auto":
		return configured
	case runtimes != "":
		return runtimes
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil && facts.CgroupV2 {
		return spec.Systemd
	}
	return spec.Cgroupfs
}
