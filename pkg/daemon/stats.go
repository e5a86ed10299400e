package daemon

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/stats"
)

// openStats makes the collector of statistics. Without cgroups it finds nothing;
// containers do not run then either, and nothing else should suffer.
func (s *services) openStats(life context.Context, running *sync.WaitGroup) {
	h, err := cgroup.Find()
	if err != nil {
		klog.FromContext(life).Error(err, "There are no statistics")
		h = &cgroup.Hierarchies{}
	}
	s.stats = stats.New(stats.Deps{
		Pods: s.pods, Containers: s.containers, Layers: s.images, Hierarchies: h, CgroupDriver: s.driver, LayerRoot: s.o.Config.Root,
		MaxFiles: filesForStats(),
	})
	running.Go(func() { _ = s.stats.Run(life) }) // nil always
}

// filesForStats is a quarter of what the daemon may open: requests come first.
func filesForStats() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<20) / 4)
}
