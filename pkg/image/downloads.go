package image

import (
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/registry"
)

// downloads is how images are pulled. What is here may change while the service
// runs; a pull goes on as it began.
type downloads struct {
	registry *registry.Client
	layers   int // of one image, at a time
}

// SetDownloads changes how images are pulled from now on: what Options has as
// Registry and MaxConcurrentDownloads.
func (s *Service) SetDownloads(r registry.Options, maxConcurrent int) {
	if maxConcurrent <= 0 {
		maxConcurrent = 4
	}
	r.Memory, r.Connections, r.Received = s.memory, s.connections, &s.received
	old := s.downloads.Swap(&downloads{registry: registry.New(r), layers: maxConcurrent})
	if old != nil {
		old.registry.Close() // its idle connections: pulls keep theirs
	}
}

// Received is how many bytes of blobs have come from registries.
func (s *Service) Received() int64 { return s.received.Load() }

// localName is the name of an image that is here which ref means, or what ref
// means by itself: a short name may stand for several. It is "" for no name.
func (d *downloads) localName(x *catalog.Index, ref string) (name string) {
	for _, n := range d.registry.Hosts().Local(ref) { // the last one is ref itself
		if name = n.String(); x.Has(name) {
			break
		}
	}
	return name
}
