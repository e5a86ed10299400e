package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const recordVersion = 1

// record is an image on disk. It names content; it holds none.
type record struct {
	Version  int               `json:"version"`
	ID       digest.Digest     `json:"id"`
	Manifest ispec.Descriptor  `json:"manifest"`
	Layers   []layerRecord     `json:"layers,omitempty"`
	Stack    []digest.Digest   `json:"stack,omitempty"` // what to mount, the lowest first
	Size     int64             `json:"size"`
	Created  time.Time         `json:"created"`
	Notes    map[string]string `json:"annotations,omitempty"`
	Handler  string            `json:"runtimeHandler,omitempty"` // of the last pull
	Artifact *artifactRecord   `json:"artifact,omitempty"`       // nil for an image

	config ispec.Image // read from its blob
	fault  error       // why the image is not shown; see doctor.fault
	since  time.Time   // of fault
}

// layerRecord joins the two forms of a layer.
type layerRecord struct {
	DiffID digest.Digest    `json:"diffID"`
	Blob   ispec.Descriptor `json:"blob"`
}

// diffIDs returns an image's layers, the lowest first; none for an artifact.
func (r record) diffIDs() []digest.Digest {
	var all []digest.Digest
	for _, l := range r.Layers {
		if r.Artifact == nil {
			all = append(all, l.DiffID)
		}
	}
	return all
}

// artifactRecord is what a record has of an artifact, whose id is the digest of
// its manifest and whose layers have blobs only.
type artifactRecord struct {
	Type   string           `json:"type"`
	Config ispec.Descriptor `json:"config"`
	Tree   string           `json:"tree"`
}

// refRecord is a reference on disk.
type refRecord struct {
	Version int           `json:"version"`
	Name    string        `json:"name"`
	Image   digest.Digest `json:"image"`
}

func (s *Service) recordPath(id digest.Digest) string {
	return filepath.Join(s.recordDir(), id.Algorithm().String()+"-"+id.Encoded()+".json")
}

func (s *Service) refPath(name string) string {
	return filepath.Join(s.refDir(), digest.FromString(name).Encoded()+".json")
}

// load reads all records; what it cannot read it sets aside. An image whose
// content is missing or damaged is kept, and not shown.
func (s *Service) load(ctx context.Context) error {
	log := klog.FromContext(ctx)
	aside := func(path string, err error) {
		log.Error(err, "Setting a damaged image record aside", "path", path)
		to, moveErr := statefile.Quarantine(path)
		s.faults = append(s.faults, Problem{Object: path, What: fmt.Sprintf("damaged record, moved to %s: %v", to, errors.Join(err, moveErr))})
	}
	err := each(s.recordDir(), func(path string) {
		r, err := s.readRecord(path)
		if err != nil {
			aside(path, err)
			return
		}
		r.fault = doctor{s}.fault(&r)
		if r.fault != nil {
			r.since = time.Now()
			log.Error(r.fault, "An image is damaged, and absent until it is pulled again", "image", r.ID)
		}
		s.records[r.ID] = r
	})
	if err != nil {
		return err
	}
	err = each(s.refDir(), func(path string) {
		r, err := s.readRef(path)
		if err != nil {
			aside(path, err)
			return
		}
		s.refs[r.Name] = r.Image
	})
	s.publishLocked()
	return err
}

func each(dir string, use func(path string)) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read image records: %w", err)
	}
	for _, n := range names {
		if !statefile.Leftover(n.Name()) && strings.HasSuffix(n.Name(), ".json") {
			use(filepath.Join(dir, n.Name()))
		}
	}
	return nil
}

func (s *Service) readRecord(path string) (record, error) {
	var r record
	if err := statefile.Read(path, &r); err != nil {
		return r, err
	}
	switch {
	case r.Version != recordVersion:
		return r, fmt.Errorf("version %d: %w", r.Version, errs.Unsupported)
	case r.ID.Validate() != nil || r.Manifest.Digest.Validate() != nil || s.recordPath(r.ID) != path:
		return r, fmt.Errorf("record of %q: %w", r.ID, statefile.ErrCorrupt)
	}
	return r, nil
}

func (s *Service) readRef(path string) (refRecord, error) {
	var r refRecord
	if err := statefile.Read(path, &r); err != nil {
		return r, err
	}
	if r.Version != recordVersion {
		return r, fmt.Errorf("version %d: %w", r.Version, errs.Unsupported)
	}
	if name, err := reference.Normalize(r.Name); err != nil || name != r.Name || s.refPath(name) != path {
		return r, fmt.Errorf("reference %q: %w", r.Name, statefile.ErrCorrupt)
	}
	if r.Image.Validate() != nil { // where it has no record, its next pull brings it one
		return r, fmt.Errorf("reference %q to %q: %w", r.Name, r.Image, statefile.ErrCorrupt)
	}
	return r, nil
}

// save makes an image and its references durable, then visible, and with it
// others that lacked what it has brought.
func (s *Service) save(ctx context.Context, r record, refs []string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records[r.ID]; ok {
		r.Created, r.Handler = old.Created, old.Handler
	}
	if err := statefile.WriteDurable(s.recordPath(r.ID), r); err != nil {
		return Image{}, err
	}
	s.records[r.ID] = r
	s.faults = mended(s.faults, s.recordPath(r.ID))
	defer s.reviewLocked(ctx) // also what is left of a failure half-way
	for _, name := range refs {
		if err := s.setRefLocked(name, r.ID); err != nil {
			return Image{}, err
		}
	}
	return s.imageLocked(r), nil
}

func (s *Service) setRefLocked(name string, id digest.Digest) error {
	if s.refs[name] == id {
		return nil
	}
	if err := statefile.WriteDurable(s.refPath(name), refRecord{Version: recordVersion, Name: name, Image: id}); err != nil {
		return err
	}
	s.refs[name] = id
	s.faults = mended(s.faults, s.refPath(name))
	return nil
}

// mended returns the faults without what Open has found wrong with a record.
func mended(faults []Problem, path string) []Problem {
	return slices.DeleteFunc(faults, func(p Problem) bool { return p.Object == path })
}

func (s *Service) dropRefLocked(name string) error {
	if err := os.Remove(s.refPath(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(s.refs, name)
	return nil
}
