package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/spec"
)

// recordVersion is that of both files. A reader refuses newer ones.
const recordVersion = 1

// configRecord is config.json.
type configRecord struct {
	Version    int             `json:"version"`
	ID         string          `json:"id"`
	PodID      string          `json:"podId"`
	Handler    string          `json:"handler,omitempty"`
	Config     json.RawMessage `json:"config"` // CRI's ContainerConfig in protobuf's JSON
	ImageID    string          `json:"imageId"`
	Volumes    map[int]string  `json:"volumeImages,omitempty"`
	LogPath    string          `json:"logPath,omitempty"`
	User       spec.User       `json:"user"`
	StopSignal int             `json:"stopSignal"`
	CreatedAt  time.Time       `json:"createdAt"`
	Spec       *specs.Spec     `json:"spec"`
	Env        [][]byte        `json:"env,omitempty"` // see spec.RawEnv
	Restores   bool            `json:"restores,omitempty"`
}

// stateRecord is state.json.
type stateRecord struct {
	Version   int             `json:"version"`
	Resources json.RawMessage `json:"resources,omitempty"` // CRI's, in protobuf's JSON
	Status
}

// paths are where a container's records lie.
type paths struct{ root string }

func (p *paths) home() string                { return filepath.Join(p.root, "containers") }
func (p *paths) dir(id string) string        { return filepath.Join(p.home(), id) }
func (p *paths) statePath(id string) string  { return filepath.Join(p.dir(id), "state.json") }
func (p *paths) configPath(id string) string { return filepath.Join(p.dir(id), "config.json") }

func nameKey(podID string, c *cri.ContainerConfig) string {
	return fmt.Sprintf("%s/%s/%d", podID, c.GetMetadata().GetName(), c.GetMetadata().GetAttempt())
}

// writeConfig writes config.json.
func (s *Service) writeConfig(c *Container, sp *specs.Spec, user spec.User) error {
	config, err := protojson.Marshal(c.Config)
	if err != nil {
		return fmt.Errorf("encode configuration of container %s: %w", c.ID, err)
	}
	return statefile.Write(s.configPath(c.ID), configRecord{
		Version: recordVersion, ID: c.ID, PodID: c.PodID, Handler: c.handler, Config: config, ImageID: c.ImageID, Volumes: c.VolumeImages, LogPath: c.LogPath,
		User: user, StopSignal: c.stopSignal, CreatedAt: c.CreatedAt, Spec: sp, Env: spec.RawEnv(sp.Process), Restores: c.restores,
	})
}

// writeStatus writes state.json.
func (s *Service) writeStatus(id string, st Status) error {
	r := stateRecord{Version: recordVersion, Status: st}
	if st.Resources != nil {
		raw, err := protojson.Marshal(st.Resources)
		if err != nil {
			return fmt.Errorf("encode resources of container %s: %w", id, err)
		}
		r.Resources = raw
	}
	return statefile.Write(s.statePath(id), r)
}

// errIncomplete says that a directory is half of a Create or of a Remove.
var errIncomplete = errors.New("record is incomplete")

// load reads the records of one container.
func (s *Service) load(id string) (*Container, error) {
	var state stateRecord
	if err := statefile.Read(s.statePath(id), &state); errors.Is(err, fs.ErrNotExist) {
		return nil, errIncomplete
	} else if err != nil {
		return nil, err
	}
	r, err := s.readConfig(id)
	if err != nil {
		return nil, err
	}
	if state.Version > recordVersion {
		return nil, fmt.Errorf("record of version %d, this build reads up to %d: %w", state.Version, recordVersion, statefile.ErrCorrupt)
	}
	c := &Container{
		ID: id, PodID: r.PodID, Config: &cri.ContainerConfig{}, ImageID: r.ImageID, VolumeImages: r.Volumes, LogPath: r.LogPath, User: criUser(r.User),
		StopSignal: criSignal(r.StopSignal), CreatedAt: r.CreatedAt, Status: state.Status, handler: r.Handler, stopSignal: r.StopSignal, restores: r.Restores, process: r.Spec.Process,
		asked: new(atomic.Bool), exited: make(chan struct{}),
	}
	if l := r.Spec.Linux; l != nil {
		c.CgroupsPath = l.CgroupsPath
	}
	if err := unmarshal(r.Config, c.Config); err != nil {
		return nil, err
	}
	if state.Resources != nil {
		c.Status.Resources = &cri.LinuxContainerResources{}
		if err := unmarshal(state.Resources, c.Status.Resources); err != nil {
			return nil, err
		}
	}
	if c.Status.State == Exited {
		close(c.exited)
	}
	return c, nil
}

func (s *Service) readConfig(id string) (configRecord, error) {
	var r configRecord
	if err := statefile.Read(s.configPath(id), &r); err != nil {
		return r, err
	}
	if r.Version > recordVersion || r.ID != id || r.Spec == nil || r.Spec.Process == nil {
		return r, fmt.Errorf("%s: %w", s.configPath(id), statefile.ErrCorrupt)
	}
	spec.SetRawEnv(r.Spec.Process, r.Env)
	return r, nil
}

func unmarshal(raw json.RawMessage, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, m); err != nil {
		return fmt.Errorf("%w: %w", statefile.ErrCorrupt, err)
	}
	return nil
}

// Spec returns the specification that the container was made from, from disk.
func (s *Service) Spec(id string) (*specs.Spec, error) {
	r, err := s.readConfig(id)
	if err != nil {
		return nil, fmt.Errorf("specification of container %s: %w", id, err)
	}
	return r.Spec, nil
}

// openAll reads every record. One that cannot be read is set aside, so that
// the container is taken down like an incomplete one.
func (s *Service) openAll() error {
	if err := os.MkdirAll(s.home(), 0o700); err != nil { // the host's users have no business in volumes
		return err
	}
	entries, err := os.ReadDir(s.home())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || statefile.Leftover(e.Name()) {
			continue
		}
		id := e.Name()
		_ = statefile.Sweep(filepath.Join(s.home(), id)) // goes with the container at the latest
		c, err := s.load(id)
		if err != nil {
			s.leftovers.add(id, err)
			continue
		}
		s.table.Put(id, c)
		s.names.Reserve(nameKey(c.PodID, c.Config), id)
	}
	return nil
}
