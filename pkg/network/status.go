package network

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	// statusFresh is how long an answer of the plugins' STATUS is kept: kubelet
	// asks every few seconds, and asking the plugins starts processes.
	statusFresh = 10 * time.Second
	// statusTimeout bounds STATUS of all plugins.
	statusTimeout = 5 * time.Second
)

// statusCache holds the plugins' last answer.
type statusCache struct {
	mu   sync.Mutex
	at   time.Time
	err  error
	conf *configuration
}

func (c *statusCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Time{}
}

// Status returns nil where pods can be attached, and otherwise the reason, of
// kind errs.Unavailable. Plugins of CNI 1.1 configurations are asked, at most
// every ten seconds.
func (s *Service) Status(ctx context.Context) error {
	c := s.conf.Load()
	if err := c.reason(s.opts.ConfDir); err != nil {
		return err
	}
	s.status.mu.Lock()
	defer s.status.mu.Unlock()
	if s.status.conf == c && time.Since(s.status.at) < statusFresh {
		return s.status.err
	}
	err := s.askPlugins(ctx, c)
	if ctx.Err() == nil {
		s.status.at, s.status.err, s.status.conf = time.Now(), err, c
	}
	return err
}

func (s *Service) askPlugins(ctx context.Context, c *configuration) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	for _, n := range c.networks {
		if err := findPlugins(s.exec, n, s.opts.BinDirs, false); err != nil {
			return err
		}
		if err := s.cni.of(n.list.Name).GetStatusNetworkList(ctx, n.list); err != nil {
			return fmt.Errorf("network %s: %w: %w", n.list.Name, errs.Unavailable, err)
		}
	}
	return nil
}

// Info describes the configuration in words, for a verbose Status.
func (s *Service) Info() map[string]string {
	info := map[string]string{"confDir": s.opts.ConfDir, "binDirs": fmt.Sprint(s.opts.BinDirs)}
	c := s.conf.Load()
	for i, n := range c.networks {
		info[fmt.Sprintf("network.%d", i)] = n.list.Name
		info[fmt.Sprintf("file.%d", i)] = n.file
	}
	for file, err := range c.broken {
		info["broken."+file] = err.Error()
	}
	if b := s.builtin.Load(); b != nil {
		info["confDir"] = ""
		info["subnet"] = b.Subnet.String()
		if b.Subnet6.IsValid() {
			info["subnet6"] = b.Subnet6.String()
		}
	}
	if c := s.wanted.Load(); c != nil {
		info["podCIDR"] = c.String()
	}
	return info
}
