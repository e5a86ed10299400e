package cri

import (
	"context"
	"encoding/json"
	"regexp"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/runtime"
)

// The names and versions that Version answers.
const (
	runtimeName = "berth"
	apiVersion  = "v1"
)

// Network is what Status needs of the network service.
type Network interface {
	// Status returns why pods cannot be attached now, or nil.
	Status(ctx context.Context) error
	// Info describes the configuration in words.
	Info() map[string]string
}

// Handler is a runtime handler and what it can do.
type Handler struct {
	Name              string
	RecursiveReadOnly bool
	UserNamespaces    bool
}

// Node answers what kubelet asks of the node as a whole.
type Node struct {
	// Build is the version of this build, semantic or not.
	Build   string
	Runtime runtime.Runtime
	Network Network
	// Handlers are the runtime handlers, "" for the default one among them.
	Handlers []Handler
	// CgroupDriver is what kubelet must be set to.
	CgroupDriver runtimeapi.CgroupDriver
	// Info is added to a verbose Status, each value as JSON.
	Info map[string]any
}

// semver finds a semantic version at the beginning of what git describe says.
var semver = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)`)

// Version tells who answers. CRI wants runtime_version to be semantic.
func (n *Node) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	version := "0.0.0"
	if m := semver.FindStringSubmatch(n.Build); m != nil {
		version = m[1]
	} else if n.Build != "" {
		version += "-" + regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(n.Build, "-")
	}
	return &runtimeapi.VersionResponse{
		Version: "0.1.0", RuntimeName: runtimeName, RuntimeVersion: version, RuntimeApiVersion: apiVersion,
	}, nil
}

// statusTimeout bounds each question that Status asks.
const statusTimeout = 2 * time.Second

// Status tells whether pods can run: whether berth-runtime answers, and whether
// there is a network.
func (n *Node) Status(ctx context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	answer, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	version, err := n.Runtime.Version(answer)
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			condition(runtimeapi.RuntimeReady, "RuntimeNotReady", err),
			condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", n.Network.Status(ctx)),
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true},
	}
	for _, h := range n.Handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: h.Name, Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: h.RecursiveReadOnly, UserNamespaces: h.UserNamespaces},
		})
	}
	if r.GetVerbose() {
		resp.Info, err = n.verbose(version)
	} else {
		err = nil
	}
	return resp, err
}

func condition(kind, reason string, err error) *runtimeapi.RuntimeCondition {
	if err != nil {
		return &runtimeapi.RuntimeCondition{Type: kind, Reason: reason, Message: err.Error()}
	}
	return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
}

func (n *Node) verbose(v runtime.Version) (map[string]string, error) {
	all := map[string]any{"runtime": v, "cni": n.Network.Info()}
	for name, value := range n.Info {
		all[name] = value
	}
	return texts(all)
}

// texts encodes each value as JSON, as CRI has its verbose information.
func texts(values map[string]any) (map[string]string, error) {
	out := map[string]string{}
	for name, value := range values {
		data, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		out[name] = string(data)
	}
	return out, nil
}

// RuntimeConfig tells kubelet the cgroup driver.
func (n *Node) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: n.CgroupDriver}}, nil
}
