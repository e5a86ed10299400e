package image

import "github.com/berth-run/berth/pkg/image/catalog"

// List returns all images, by id. It takes no lock; the slice is shared and must
// not be changed.
func (s *Service) List() []Image { return s.catalog.Index().Images() }

// Get returns the image of a tag, a digest reference, an id with or without its
// algorithm, or an id's unique beginning of at least four digits. The error is of
// kind NotFound, or Invalid where ref cannot name an image. It takes no lock.
func (s *Service) Get(ref string) (Image, error) { return s.find(s.catalog.Index(), ref) }

func (s *Service) find(x *catalog.Index, ref string) (Image, error) {
	return x.Get(ref, func() string { return s.downloads.Load().localName(x, ref) })
}
