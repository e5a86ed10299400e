package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

// recordVersion is that of both files. A reader refuses newer ones.
const recordVersion = 1

// configRecord is config.json.
type configRecord struct {
	Version   int             `json:"version"`
	ID        string          `json:"id"`
	Handler   string          `json:"handler,omitempty"`
	CreatedAt time.Time       `json:"createdAt"`
	Config    json.RawMessage `json:"config"` // CRI's PodSandboxConfig in protobuf's JSON
}

// stateRecord is state.json.
type stateRecord struct {
	Version    int                                 `json:"version"`
	State      State                               `json:"state"`
	Released   bool                                `json:"released,omitempty"`
	NetNS      string                              `json:"netns,omitempty"`
	IPs        addresses                           `json:"ips,omitempty"`
	Namespaces map[specs.LinuxNamespaceType]string `json:"namespaces,omitempty"`
	// What UpdateResources was given last, in protobuf's JSON.
	Overhead  json.RawMessage `json:"overhead,omitempty"`
	Resources json.RawMessage `json:"resources,omitempty"`
}

func (s *Service) writeConfig(p *Sandbox) error {
	raw, err := protojson.Marshal(p.Config)
	if err != nil {
		return fmt.Errorf("encode configuration of pod %s: %w", p.ID, err)
	}
	return statefile.Write(s.configPath(p.ID), configRecord{
		Version: recordVersion, ID: p.ID, Handler: p.Handler, CreatedAt: p.CreatedAt, Config: raw,
	})
}

func (s *Service) writeState(p *Sandbox) error {
	overhead, err := encode(p.overhead)
	if err != nil {
		return err
	}
	resources, err := encode(p.resources)
	if err != nil {
		return err
	}
	return statefile.Write(s.statePath(p.ID), stateRecord{
		Version: recordVersion, State: p.State, Released: p.released, NetNS: p.NetNS, IPs: p.IPs, Namespaces: p.namespaces,
		Overhead: overhead, Resources: resources,
	})
}

// errIncomplete says that a directory is half of a Run or of a Remove.
var errIncomplete = errors.New("record is incomplete")

// load reads the records of one pod.
func (s *Service) load(id string) (*Sandbox, error) {
	var state stateRecord
	if err := statefile.Read(s.statePath(id), &state); errors.Is(err, fs.ErrNotExist) {
		return nil, errIncomplete
	} else if err != nil {
		return nil, err
	}
	var config configRecord
	if err := statefile.Read(s.configPath(id), &config); err != nil {
		return nil, err
	}
	if state.Version > recordVersion || config.Version > recordVersion || config.ID != id {
		return nil, fmt.Errorf("%s: %w", s.configPath(id), statefile.ErrCorrupt)
	}
	p := &Sandbox{
		ID: id, Config: &cri.PodSandboxConfig{}, Handler: config.Handler, CreatedAt: config.CreatedAt,
		State: state.State, NetNS: state.NetNS, IPs: state.IPs, namespaces: state.Namespaces, released: state.Released,
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(config.Config, p.Config); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", s.configPath(id), statefile.ErrCorrupt, err)
	}
	var err, err2 error
	p.overhead, err = decode(state.Overhead)
	p.resources, err2 = decode(state.Resources)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", s.statePath(id), statefile.ErrCorrupt, err)
	}
	return p, nil
}

// openAll reads every record, notes what is not a pod, and removes what is half
// written.
func (s *Service) openAll() error {
	for dir, mode := range map[string]os.FileMode{s.home(): 0o700, s.stateHome(): 0o700, s.d.NetNSDir: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	ids, err := directories(s.home())
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := statefile.Sweep(s.dir(id)); err != nil {
			return err
		}
		p, err := s.load(id)
		if err != nil {
			s.halves.add(id, err)
			continue
		}
		s.table.Put(id, p)
		s.names.Reserve(nameKey(p.Config), id)
	}
	return nil
}

// directories returns the names of a store's objects.
func directories(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !statefile.Leftover(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
