package nri

import (
	"maps"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
)

// names are what a container has of two kinds.
type names struct{ env, devices map[string]bool }

func namesOf(c *api.Container) names {
	n := names{map[string]bool{}, map[string]bool{}}
	for _, kv := range c.GetEnv() {
		name, _, _ := strings.Cut(kv, "=")
		n.env[name] = true
	}
	for _, d := range c.GetLinux().GetDevices() {
		n.devices[d.GetPath()] = true
	}
	return n
}

// takeAway adds what plugins take away to a. The library (v0.12.5) leaves variables
// and devices out of its answer, but takes them from the container of the request,
// which it shows to the next plugin.
func takeAway(a *api.ContainerAdjustment, before, after names) {
	for _, name := range slices.Sorted(maps.Keys(before.env)) {
		if !after.env[name] {
			a.RemoveEnv(name)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(before.devices)) {
		if !after.devices[path] {
			a.RemoveDevice(path)
		}
	}
}
