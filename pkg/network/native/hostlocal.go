package native

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"k8s.io/klog/v2"
)

// isHostLocalOurs says whether the host-local that CNI would run is the one that
// this package does the same as, or is not needed.
func (e *Exec) isHostLocalOurs(c *call) bool {
	path, err := e.FindInPath("host-local", filepath.SplitList(c.path))
	if err != nil {
		return c.mayBundle
	}
	return e.isReference(path)
}

// allocate does host-local's ADD with that plugin's own store and allocator.
func (e *Exec) allocate(c *call) (*current.Result, error) {
	conf, store, err := openStore(c)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if conf.ResolvConf != "" {
		return nil, errDecline
	}
	e.ipam.Lock()
	defer e.ipam.Unlock()
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: conf.Routes}
	for i := range conf.Ranges {
		a := allocator.NewIPAllocator(&conf.Ranges[i], store, i)
		got, err := a.Get(c.container, c.ifName, nil)
		if err != nil {
			if i > 0 {
				err = errors.Join(err, store.ReleaseByID(c.container, c.ifName))
			}
			return nil, fmt.Errorf("failed to allocate for range %d: %w", i, err)
		}
		res.IPs = append(res.IPs, got)
	}
	return res, nil
}

// release does host-local's DEL.
func (e *Exec) release(c *call) error {
	_, store, err := openStore(c)
	if err != nil {
		return err
	}
	defer store.Close()
	e.ipam.Lock()
	defer e.ipam.Unlock()
	if err := store.Lock(); err != nil {
		return err
	}
	defer func() { _ = store.Unlock() }() // closing the file unlocks as well
	return store.ReleaseByID(c.container, c.ifName)
}

func openStore(c *call) (*allocator.IPAMConfig, *disk.Store, error) {
	conf, _, err := allocator.LoadIPAMConfig(c.conf, "")
	if err != nil {
		return nil, nil, err
	}
	store, err := disk.New(conf.Name, conf.DataDir)
	return conf, store, err
}

// DropLeases removes the addresses of pods that keep refuses from the directory
// of one network's leases. No plugin may run meanwhile.
func DropLeases(dir string, keep func(podID string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err != nil {
			continue // the store keeps other things there too
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		podID, _, _ := strings.Cut(strings.TrimSpace(string(data)), disk.LineBreak) // the interface follows
		if keep(podID) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		klog.Background().Info("Address of an unknown pod is free again", "address", e.Name(), "pod", podID)
	}
	return nil
}
