package daemon

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/cri/stream"
	"github.com/berth-run/berth/pkg/errs"
)

// openStreams begins to serve streaming sessions. Where it cannot, the calls that
// ask for one say why, and the daemon does the rest of its work.
func (s *services) openStreams(life context.Context, running *sync.WaitGroup) {
	c := s.o.Config.Stream
	server, err := stream.Listen(stream.Options{
		Address: net.JoinHostPort(c.Address, strconv.Itoa(c.Port)), IdleTimeout: c.IdleTimeout.Duration,
		TLS: stream.TLSFiles{Certificate: c.CertFile, Key: c.KeyFile, ClientCA: c.ClientCAFile},
	}, s.criStreams.Sessions)
	if err != nil {
		klog.FromContext(life).Error(err, "Exec, attach and port-forward are not served")
		s.criStreams.URL = func(stream.Request) (string, error) { return "", fmt.Errorf("%w: %w", err, errs.Unavailable) }
		return
	}
	s.streams, s.criStreams.URL = server, server.URL
	running.Go(func() {
		if err := server.Serve(); err != nil {
			klog.FromContext(life).Error(err, "Exec, attach and port-forward are not served any more")
		}
	})
}
