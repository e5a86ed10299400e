package pod_test

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func TestNamespacesFollowTheModes(t *testing.T) {
	n := newNode(t)
	for name, c := range map[string]struct {
		options *cri.NamespaceOption
		want    []specs.LinuxNamespaceType
	}{
		"own":  {&cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}, []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace}},
		"host": {&cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_NODE, Ipc: cri.NamespaceMode_NODE}, nil},
		"pid":  {&cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_POD}, []specs.LinuxNamespaceType{specs.IPCNamespace, specs.PIDNamespace}},
	} {
		config := testConfig(name)
		config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: c.options}
		id := n.run(config)
		var got []specs.LinuxNamespaceType
		for _, ns := range n.runtime.Pods()[id].Namespaces {
			got = append(got, ns.Type)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		_, attached := n.network.attached[id]
		if attached != (c.options.Network == cri.NamespaceMode_POD) {
			t.Errorf("%s: attached %t", name, attached)
		}
	}
}

func TestAPodIsCalledByItsOwnNameOrTheNodes(t *testing.T) {
	n := newNode(t)
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		mode        cri.NamespaceMode
		given, want string // "" is the id's beginning
	}{
		"own name":              {cri.NamespaceMode_POD, "web", "web"},
		"no name":               {cri.NamespaceMode_POD, "", ""},
		"node's":                {cri.NamespaceMode_NODE, "", node},
		"node's despite a name": {cri.NamespaceMode_NODE, "web", node}, // as hostname(1) says there
	} {
		config := testConfig(name)
		config.Hostname = c.given
		config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: c.mode, Pid: cri.NamespaceMode_CONTAINER}}
		id := n.run(config)
		want := cmp.Or(c.want, id[:12])
		request, _ := n.runtime.Request(n.create(id, "c"))
		if env := request.Spec.Process.Env; !slices.Contains(env, "HOSTNAME="+want) {
			t.Errorf("%s: environment %q", name, env)
		}
		for _, m := range request.Spec.Mounts {
			if m.Destination != "/etc/hostname" {
				continue
			}
			if file, err := os.ReadFile(m.Source); err != nil || string(file) != want+"\n" {
				t.Errorf("%s: file %q, %v", name, file, err)
			}
			want = "found"
		}
		if want != "found" {
			t.Errorf("%s: no /etc/hostname", name)
		}
	}
}

func TestAContainerCannotLeaveWhatIsThePods(t *testing.T) {
	const node, own = cri.NamespaceMode_NODE, cri.NamespaceMode_CONTAINER
	mapped := []*cri.IDMapping{{HostId: 65536, Length: 65536}}
	n := newNode(t)
	for name, c := range map[string]struct{ pod, container *cri.NamespaceOption }{
		"network":     {&cri.NamespaceOption{}, &cri.NamespaceOption{Network: node}},
		"IPC":         {&cri.NamespaceOption{Network: node}, &cri.NamespaceOption{Network: node, Ipc: node}},
		"own network": {&cri.NamespaceOption{}, &cri.NamespaceOption{Network: own}},
		"own IPC":     {&cri.NamespaceOption{}, &cri.NamespaceOption{Ipc: own}},
		"own users":   {&cri.NamespaceOption{}, &cri.NamespaceOption{UsernsOptions: &cri.UserNamespace{Uids: mapped, Gids: mapped}}},
	} {
		config := testConfig(name)
		config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: c.pod}
		id := n.run(config)
		create := func(o *cri.NamespaceOption) error {
			_, err := n.CreateContainer(t.Context(), id, &cri.ContainerConfig{
				Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: "app"},
				Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: o}},
			})
			return err
		}
		if err := create(c.container); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err := create(c.pod); err != nil {
			t.Errorf("%s, as the pod: %v", name, err)
		}
	}
}
