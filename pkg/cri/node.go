package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
	// Status returns why pods cannot be attached now, or nil. It bounds itself.
	Status(ctx context.Context) error
	// Info describes the configuration in words.
	Info() map[string]string
	// SetPodCIDR takes the subnets of this node's pods; empty: nothing.
	SetPodCIDR(ctx context.Context, cidr string) error
}

// Handler is a runtime handler and what it can do.
type Handler struct {
	Name              string
	RecursiveReadOnly bool
	UserNamespaces    bool
	// Err is why it cannot make containers now, or nil.
	Err error
}

// Node answers what kubelet asks of the node as a whole.
type Node struct {
	// Build is the version of this build, semantic or not.
	Build   string
	Runtime runtime.Runtime
	Network Network
	// Handlers returns the runtime handlers, "" for the default one among them; nil:
	// nothing is told of them.
	Handlers func(context.Context) []Handler
	// CgroupDriver is what kubelet must be set to: "systemd" or "cgroupfs".
	CgroupDriver string
	// Info is added to a verbose Status, each value as JSON.
	Info map[string]any
}

// Version tells who answers. CRI wants runtime_version to be semantic.
func (n *Node) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version: "0.1.0", RuntimeName: runtimeName, RuntimeVersion: semantic(n.Build), RuntimeApiVersion: apiVersion,
	}, nil
}

// The forms of semver.org, and what may not be in any part of them.
var (
	semver   = regexp.MustCompile(`^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)
	notInTag = regexp.MustCompile(`[^0-9A-Za-z-]+`)
)

// semantic makes a semantic version of what git describe says, which may be a
// bare commit.
func semantic(build string) string {
	if v := strings.TrimPrefix(build, "v"); semver.MatchString(v) {
		return v
	}
	if build == "" {
		return "0.0.0"
	}
	return "0.0.0+" + notInTag.ReplaceAllString(build, "-")
}

// statusTimeout bounds the question to berth-runtime.
const statusTimeout = 2 * time.Second

// Status tells whether pods can run: whether berth-runtime answers, and whether
// there is a network.
func (n *Node) Status(ctx context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	version, err := n.runtimeVersion(ctx)
	var all []Handler
	if n.Handlers != nil {
		all = n.Handlers(ctx)
	}
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			condition(runtimeapi.RuntimeReady, "RuntimeNotReady", err),
			condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", n.Network.Status(ctx)),
			condition(handlersReady, "RuntimeHandlerNotReady", handlersError(all)),
		}},
		RuntimeHandlers: handlers(all),
		Features: &runtimeapi.RuntimeFeatures{
			SupplementalGroupsPolicy: true, MountOptions: true, UserNamespacesHostNetwork: userNamespaces(all),
		},
	}
	if !r.GetVerbose() {
		return resp, nil
	}
	resp.Info, err = n.verbose(version)
	return resp, err
}

// runtimeVersion asks berth-runtime who it is. One that makes cgroups in another
// way than we name them is as bad as none.
func (n *Node) runtimeVersion(ctx context.Context) (runtime.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	v, err := n.Runtime.Version(ctx)
	switch {
	case err != nil:
		return v, fmt.Errorf("berth-runtime does not answer: %w", err)
	case v.CgroupDriver != n.CgroupDriver:
		return v, fmt.Errorf("berth-runtime runs with --cgroup-driver %s, berthd with %s: make them agree", v.CgroupDriver, n.CgroupDriver)
	}
	return v, nil
}

func handlers(all []Handler) []*runtimeapi.RuntimeHandler {
	var out []*runtimeapi.RuntimeHandler
	for _, h := range all {
		features := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: h.RecursiveReadOnly, UserNamespaces: h.UserNamespaces}
		out = append(out, &runtimeapi.RuntimeHandler{Name: h.Name, Features: features})
	}
	return out
}

// handlersReady is a condition of Berth's own, which kubelet only passes over: pods
// of other handlers run.
const handlersReady = "RuntimeHandlersReady"

func handlersError(all []Handler) error {
	var list []error
	for _, h := range all {
		if h.Name != "" { // the default has a name, too
			list = append(list, h.Err)
		}
	}
	return errors.Join(list...)
}

func userNamespaces(all []Handler) bool {
	return slices.ContainsFunc(all, func(h Handler) bool { return h.UserNamespaces })
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

// UpdateRuntimeConfig takes the pods' subnets.
func (n *Node) UpdateRuntimeConfig(ctx context.Context, r *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	if err := n.Network.SetPodCIDR(ctx, r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()); err != nil {
		return nil, notUs(err)
	}
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// RuntimeConfig tells kubelet the cgroup driver.
func (n *Node) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if n.CgroupDriver == "systemd" {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}
