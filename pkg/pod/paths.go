package pod

import "path/filepath"

// paths are where a pod's things lie.
type paths struct {
	root, state, netNSDir string
}

func (p *paths) home() string                { return filepath.Join(p.root, "pods") }
func (p *paths) dir(id string) string        { return filepath.Join(p.home(), id) }
func (p *paths) configPath(id string) string { return filepath.Join(p.dir(id), "config.json") }
func (p *paths) statePath(id string) string  { return filepath.Join(p.dir(id), "state.json") }
func (p *paths) stateHome() string           { return filepath.Join(p.state, "pods") }
func (p *paths) stateDir(id string) string   { return filepath.Join(p.stateHome(), id) }
func (p *paths) file(id, name string) string { return filepath.Join(p.stateDir(id), name) }
func (p *paths) pins(id string) string       { return filepath.Join(p.stateDir(id), "ns") }
func (p *paths) pin(id, kind string) string  { return filepath.Join(p.pins(id), kind) }
func (p *paths) netns(id string) string      { return filepath.Join(p.netNSDir, netnsPrefix+id) }

// netnsPrefix tells our pins from those of others in the same directory.
const netnsPrefix = "berth-"
