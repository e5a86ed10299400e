// Package native does in process what four of the reference CNI plugins do:
// bridge, host-local (inside bridge), portmap, and bandwidth where it has
// nothing to do. A plugin started as a process costs 5 ms, and starts others.
//
// It stands in only where nobody can tell: the binary that CNI found must be
// the reference plugin in exactly the version that Berth is built with (see
// identity.go), and its configuration may have only options that this package
// implements. Everything else runs the binary. Names, rules, files and results
// are the same, so that ADD by one and DEL by the other works both ways; a test
// compares them. Two things are better: the bridge port's state is awaited
// instead of polled at 50 ms, and DEL without a namespace removes the pod's
// rules too.
//
// The package keeps no state of its own but what it has learnt about binaries
// and the host's packet filter.
package native

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Exec runs plugins: those that it knows in process, the others with Next.
type Exec struct {
	invoke.Exec // runs binaries

	binaries sync.Map // path → *seenFile
	filter   filter
	reaper   reaper
	// ipam serializes address allocation: the file lock of host-local excludes
	// processes, not goroutines that share nothing else.
	ipam sync.Mutex
	// bridges serializes the making of bridges.
	bridges sync.Mutex
}

// errDecline says that the binary must do it.
var errDecline = errors.New("not implemented in process")

// bundledPrefix begins the path of a plugin that has no binary.
const bundledPrefix = "(bundled)/"

// known are the plugins with an implementation here, and their import paths.
var known = map[string]string{
	"bridge":     "github.com/containernetworking/plugins/plugins/main/bridge",
	"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
	"portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap",
	"bandwidth":  "github.com/containernetworking/plugins/plugins/meta/bandwidth",
}

// Bundled returns what runs the known plugins also where no binary of theirs is
// found. It shares its state with e.
func (e *Exec) Bundled() invoke.Exec { return bundled{e} }

type bundled struct{ *Exec }

// FindInPath returns the path of a plugin's binary, or a name for one that needs
// none.
func (b bundled) FindInPath(plugin string, paths []string) (string, error) {
	path, err := b.Exec.FindInPath(plugin, paths)
	if err != nil && known[plugin] != "" {
		return bundledPrefix + plugin, nil
	}
	return path, err
}

// ExecPlugin runs one plugin command.
func (b bundled) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return b.exec(ctx, path, stdin, environ, true)
}

// ExecPlugin runs one plugin command.
func (e *Exec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return e.exec(ctx, path, stdin, environ, false)
}

func (e *Exec) exec(ctx context.Context, path string, stdin []byte, environ []string, mayBundle bool) ([]byte, error) {
	bundled := strings.HasPrefix(path, bundledPrefix)
	if bundled || e.isReference(path) {
		c := newCall(stdin, environ)
		c.bundled, c.mayBundle = bundled, mayBundle
		out, err := e.run(ctx, filepath.Base(path), c)
		if !errors.Is(err, errDecline) {
			return out, err
		}
	}
	if bundled {
		return nil, fmt.Errorf("this configuration needs the plugin %s, which is not installed", filepath.Base(path))
	}
	if err := e.reaper.wait(ctx); err != nil { // the binary may need the name of what waits there
		return nil, err
	}
	return e.Exec.ExecPlugin(ctx, path, stdin, environ)
}

// Close waits for the interfaces that DEL left behind, as long as ctx lives,
// and gives up what is open. The Exec can still be used.
func (e *Exec) Close(ctx context.Context) error {
	return errors.Join(e.reaper.wait(ctx), e.filter.close())
}

// RemoveTables removes the plugins' nftables tables where no pod has a rule in
// them.
func (e *Exec) RemoveTables() error { return e.filter.removeTables() }

func (e *Exec) run(ctx context.Context, plugin string, c *call) ([]byte, error) {
	switch c.command {
	case "STATUS", "GC": // which these plugins answer without doing anything
		return nil, e.supported(plugin, c)
	case "CHECK":
		return nil, check(e, plugin, c)
	case "ADD", "DEL":
	default:
		return nil, errDecline
	}
	switch plugin {
	case "bridge":
		return e.bridge(ctx, c)
	case "portmap":
		return e.portmap(ctx, c)
	case "bandwidth":
		return bandwidth(c)
	}
	return nil, errDecline
}

// supported returns errDecline unless the configuration is one for this
// package.
func (e *Exec) supported(plugin string, c *call) error {
	var err error
	switch plugin {
	case "bridge":
		_, err = e.parseBridge(c)
	case "portmap":
		_, err = parsePortmap(c)
	}
	return err
}

// call is one invocation of a plugin.
type call struct {
	command, container, netns, ifName, args, path string

	conf      []byte
	bundled   bool // there is no binary
	mayBundle bool // nor need there be one of host-local
}

func newCall(stdin []byte, environ []string) *call {
	c := &call{conf: stdin}
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		switch key {
		case "CNI_COMMAND":
			c.command = value
		case "CNI_CONTAINERID":
			c.container = value
		case "CNI_NETNS":
			c.netns = value
		case "CNI_IFNAME":
			c.ifName = value
		case "CNI_ARGS":
			c.args = value
		case "CNI_PATH":
			c.path = value
		}
	}
	return c
}

// asksByArgs says whether CNI_ARGS has one of the arguments that bridge and
// host-local know, in any case that they accept.
func (c *call) asksByArgs() bool {
	for item := range strings.SplitSeq(c.args, ";") {
		key, _, _ := strings.Cut(item, "=")
		if strings.EqualFold(key, "MAC") || strings.EqualFold(key, "IP") {
			return true
		}
	}
	return false
}

// decode reads the configuration into v and declines one that has a key which v
// does not know.
func (c *call) decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.conf))
	d.DisallowUnknownFields()
	if d.Decode(v) != nil {
		return errDecline // the plugin has its own words for what is wrong
	}
	return nil
}

// common are the keys that every configuration may have.
type common struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	Type          string          `json:"type"`
	Capabilities  map[string]bool `json:"capabilities"`
	DNS           types.DNS       `json:"dns"`
	RawPrevResult json.RawMessage `json:"prevResult"`
	// What GC is told to keep, in both spellings: there is nothing to collect.
	Valid    json.RawMessage `json:"cni.dev/valid-attachments"`
	Attached json.RawMessage `json:"cni.dev/attachments"`
}

// versions are those whose results this package writes.
func (c *common) versionKnown() bool {
	switch c.CNIVersion {
	case "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0":
		return true
	}
	return false
}

// prevResult decodes the result so far, or returns nil where there is none.
func (c *common) prevResult() (*current.Result, error) {
	if len(c.RawPrevResult) == 0 {
		return nil, nil
	}
	res, err := decodeResult(c.CNIVersion, c.RawPrevResult)
	if err != nil {
		return nil, fmt.Errorf("could not parse prevResult: %w", err)
	}
	return res, nil
}
