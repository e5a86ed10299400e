package daemon

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/stats"
)

// openStats makes the collector of statistics.
func (s *services) openStats(life context.Context, running *sync.WaitGroup) error {
	h, err := cgroup.Find()
	if err != nil {
		return fmt.Errorf("open statistics: %w", err)
	}
	s.stats = stats.New(stats.Deps{
		Pods: s.pods, Containers: s.containers, Layers: s.images, Hierarchies: h, CgroupDriver: s.driver, LayerRoot: s.o.Config.Root,
		MaxFiles: filesForStats(),
	})
	running.Go(func() { _ = s.stats.Run(life) }) // nil always
	return nil
}

// filesForStats is a quarter of what the daemon may open: requests come first.
func filesForStats() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<20) / 4)
}
