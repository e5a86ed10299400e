package matrix

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var podRows = map[string]row{
	"RunPodSandbox": {make: func(t *testing.T) call {
		c := newPod(t)
		c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
		return call{request: &cri.RunPodSandboxRequest{Config: c}, effect: func(t *testing.T, replies []reply) {
			all := pods(t, c.Labels[mark])
			if len(all) != 1 || all[0].State != cri.PodSandboxState_SANDBOX_READY {
				t.Fatalf("pods %v", all)
			}
			for _, r := range replies {
				if id := the[*cri.RunPodSandboxResponse](r).PodSandboxId; id != all[0].Id {
					t.Errorf("pod %s, one was answered %s", all[0].Id, id)
				}
			}
		}}
	}, wrong: wrongPods},
	"StopPodSandbox": {make: func(t *testing.T) call {
		x := running(t)
		return call{request: &cri.StopPodSandboxRequest{PodSandboxId: x.pod}, effect: func(t *testing.T, _ []reply) {
			if p := pods(t, x.config.Labels[mark]); len(p) != 1 || p[0].State != cri.PodSandboxState_SANDBOX_NOTREADY {
				t.Errorf("pods %v", p)
			}
			if s := x.status(t); s.State != cri.ContainerState_CONTAINER_EXITED {
				t.Errorf("its container is %s", s.State)
			}
		}}
	}, wrong: append(lenient("pod", setStopped), several("pod", podIDs, setStopped))},
	"RemovePodSandbox": {make: func(t *testing.T) call {
		x := running(t)
		return call{request: &cri.RemovePodSandboxRequest{PodSandboxId: x.pod}, effect: func(t *testing.T, _ []reply) {
			if p := pods(t, x.config.Labels[mark]); len(p) > 0 {
				t.Errorf("pods %v", p)
			}
			if all := containerIDs(t); slices.Contains(all, x.container) {
				t.Errorf("its container %s is there", x.container)
			}
		}}
	}, wrong: append(lenient("pod", setRemoved), several("pod", podIDs, setRemoved))},
	"UpdatePodSandboxResources": {make: func(t *testing.T) call {
		x := ready(t)
		r := &cri.UpdatePodSandboxResourcesRequest{
			PodSandboxId: x.pod, Overhead: &cri.LinuxContainerResources{CpuShares: 77}, Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20},
		}
		return call{request: r, effect: func(t *testing.T, _ []reply) {
			s, err := berth.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: x.pod, Verbose: true})
			if must(t, err); !strings.Contains(s.Info["info"], `"77"`) || !strings.Contains(s.Info["info"], `"67108864"`) {
				t.Errorf("the pod is %s", s.Info["info"])
			}
		}}
	}, wrong: append(ids("pod", setUpdated), several("pod", podIDs, setUpdated))},
}

func setStopped(r *cri.StopPodSandboxRequest, id string)            { r.PodSandboxId = id }
func setRemoved(r *cri.RemovePodSandboxRequest, id string)          { r.PodSandboxId = id }
func setUpdated(r *cri.UpdatePodSandboxResourcesRequest, id string) { r.PodSandboxId = id }

func badPod(what string, change func(*cri.PodSandboxConfig)) wrong {
	return bad(what, codes.InvalidArgument, func(r *cri.RunPodSandboxRequest) { change(r.Config) })
}

func security(c *cri.PodSandboxConfig) *cri.LinuxSandboxSecurityContext {
	return c.Linux.SecurityContext
}

var wrongPods = []wrong{
	bad("nothing", codes.InvalidArgument, func(r *cri.RunPodSandboxRequest) { r.Config = nil }),
	bad("an unknown handler", codes.NotFound, func(r *cri.RunPodSandboxRequest) { r.RuntimeHandler = "kata" }),
	bad("a path as handler", codes.NotFound, func(r *cri.RunPodSandboxRequest) { r.RuntimeHandler = "../berth" }),
	badPod("no metadata", func(c *cri.PodSandboxConfig) { c.Metadata = nil }),
	badPod("no name", func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" }),
	badPod("a relative log directory", func(c *cri.PodSandboxConfig) { c.LogDirectory = "logs" }),
	badPod("a log directory with zero in it", func(c *cri.PodSandboxConfig) { c.LogDirectory = "/tmp/a\x00b" }),
	badPod("a host name with a blank", func(c *cri.PodSandboxConfig) { c.Hostname = "a b" }),
	badPod("a long host name", func(c *cri.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 65) }),
	badPod("a host name of two lines", func(c *cri.PodSandboxConfig) { c.Hostname = "a\n127.0.0.1 b" }),
	badPod("a port that is none", func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 65536}}
	}),
	badPod("a negative port", func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: -1, HostPort: 8099}}
	}),
	badPod("an unknown protocol", func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{Protocol: 9, ContainerPort: 80, HostPort: 8099}}
	}),
	badPod("a port at no address", func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 8099, HostIp: "nowhere"}}
	}),
	badPod("a name server that is no address", func(c *cri.PodSandboxConfig) { c.DnsConfig = &cri.DNSConfig{Servers: []string{"8.8.8.8\nsearch evil"}} }),
	badPod("a search domain of two lines", func(c *cri.PodSandboxConfig) { c.DnsConfig = &cri.DNSConfig{Searches: []string{"a\nb"}} }),
	badPod("a resolver's option of two lines", func(c *cri.PodSandboxConfig) { c.DnsConfig = &cri.DNSConfig{Options: []string{"a\nb"}} }),
	badPod("a cgroup of two lines", func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = "a\nb" }),
	badPod("a sysctl of the node", func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"kernel.core_pattern": "x"} }),
	badPod("a path as sysctl", func(c *cri.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4/../../kernel/core_pattern": "x"}
	}),
	badPod("the node's network sysctl", func(c *cri.PodSandboxConfig) {
		security(c).NamespaceOptions.Network = cri.NamespaceMode_NODE
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	}),
	badPod("an unknown network", func(c *cri.PodSandboxConfig) { security(c).NamespaceOptions.Network = 7 }),
	badPod("a target's processes", func(c *cri.PodSandboxConfig) { security(c).NamespaceOptions.Pid = cri.NamespaceMode_TARGET }),
	badPod("a group without a user", func(c *cri.PodSandboxConfig) { security(c).RunAsGroup = &cri.Int64Value{Value: 1} }),
	badPod("an unknown mode of user namespaces", func(c *cri.PodSandboxConfig) {
		security(c).NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_CONTAINER}
	}),
	badPod("a user namespace without users", func(c *cri.PodSandboxConfig) {
		security(c).NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD}
	}),
	badPod("users that overlap", func(c *cri.PodSandboxConfig) {
		m := []*cri.IDMapping{{HostId: 100000, Length: 65536}, {HostId: 100000, ContainerId: 1, Length: 65536}}
		security(c).NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: m, Gids: m}
	}),
	badPod("more users than there are", func(c *cri.PodSandboxConfig) {
		m := []*cri.IDMapping{{HostId: 4294967295, ContainerId: 0, Length: 4294967295}}
		security(c).NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: m, Gids: m}
	}),
	badPod("Windows", func(c *cri.PodSandboxConfig) { c.Windows = &cri.WindowsPodSandboxConfig{} }),
}

var podReads = map[string]row{
	"PodSandboxStatus": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.PodSandboxStatusRequest{PodSandboxId: x.pod, Verbose: true}, func(t *testing.T, r reply) {
			s := the[*cri.PodSandboxStatusResponse](r)
			if s.GetStatus().GetId() != x.pod || len(s.ContainersStatuses) != 1 || s.Timestamp == 0 || s.Info["info"] == "" {
				t.Errorf("got %v", s)
			}
		}
	}, nil, append(ids("pod", setPodAsked), several("pod", podIDs, setPodAsked))...),
	"ListPodSandbox": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		f := &cri.PodSandboxFilter{Id: x.pod[:20], State: &cri.PodSandboxStateValue{}, LabelSelector: x.config.Labels}
		return &cri.ListPodSandboxRequest{Filter: f}, func(t *testing.T, r reply) {
			if l := the[*cri.ListPodSandboxResponse](r).Items; len(l) != 1 || l[0].Id != x.pod {
				t.Errorf("got %v", l)
			}
		}
	}, nothingWrong(fitsNothing)),
	"StreamPodSandboxes": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{Id: x.pod}}, func(t *testing.T, r reply) {
			if l := the[*cri.StreamPodSandboxesResponse](r).PodSandboxes; len(r) != 1 || len(l) != 1 || l[0].Id != x.pod {
				t.Errorf("got %v", r)
			}
		}
	}, nothingWrong(fitsNothing)),
}

func setPodAsked(r *cri.PodSandboxStatusRequest, id string) { r.PodSandboxId = id }
