// Package cdi knows the devices that vendors describe in CDI specifications, as
// https://github.com/cncf-tags/container-device-interface has them, and what
// each adds to a container: device nodes, mounts, hooks, variables and the rest.
//
// Which devices a container gets is said by its configuration alone: CRI's field,
// and annotations of the container, which kubelet's device plugins write. Those
// of the pod, which users write, and an image's are never looked at.
//
// A specification is the vendor's and root's: it is checked for what could not
// be meant, and else trusted. One that is broken takes away its own devices and
// no others. Nothing is watched: the directories are looked at, and files that
// have changed are read, when a container asks for a device.
package cdi

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/berth-run/berth/pkg/errs"
)

// annotationPrefix begins the keys of annotations that name devices.
const annotationPrefix = "cdi.k8s.io/"

// Registry finds devices in directories of specifications. A nil one has none.
// Its methods may be called concurrently.
type Registry struct {
	dirs []string
	last atomic.Pointer[catalog]
}

// New returns the registry of some directories, of which a later one wins over an
// earlier one. They need not exist.
func New(dirs []string) *Registry { return &Registry{dirs: slices.Clone(dirs)} }

// For returns what the devices that a container asks for add to it, nil where it
// asks for none. The error is errs.Invalid for a name that is malformed, unknown or
// ambiguous, and for a specification that says what cannot be; errs.NotFound where
// the host has no such device node.
func (r *Registry) For(c *cri.ContainerConfig) (*Edits, error) {
	names, err := asked(c)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	all, edits := r.catalog(), &Edits{}
	used := map[*file]bool{}
	for _, name := range names {
		f, err := all.find(name)
		if err != nil {
			return nil, fmt.Errorf("CDI device %s: %w", name, err)
		}
		if !used[f] {
			used[f] = true
			err = edits.add(&f.spec.ContainerEdits)
		}
		if err == nil {
			_, _, device := parser.ParseDevice(name)
			err = edits.add(&f.spec.GetDevice(device).ContainerEdits)
		}
		if err != nil {
			return nil, fmt.Errorf("CDI device %s of %s: %w", name, f.path, err)
		}
	}
	return edits, nil
}

func (r *Registry) catalog() *catalog {
	if r == nil {
		return &catalog{}
	}
	now := scan(r.dirs, r.last.Load())
	r.last.Store(now)
	return now
}

// asked returns the names of the devices that a container asks for, each once:
// those of the field, then those of annotations by their keys.
func asked(c *cri.ContainerConfig) ([]string, error) {
	var all []string
	for _, d := range c.GetCDIDevices() {
		all = append(all, d.GetName())
	}
	var keys []string
	for key := range c.GetAnnotations() {
		if strings.HasPrefix(key, annotationPrefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		all = append(all, strings.Split(c.GetAnnotations()[key], ",")...)
	}
	var names []string
	for _, name := range all {
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fmt.Errorf("CDI device %.100q: a name is VENDOR/CLASS=NAME: %w", name, errs.Invalid)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}
