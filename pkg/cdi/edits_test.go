package cdi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/errs"
)

// registry has one device, vendor.com/gpu=a, with the given edits, in YAML's flow
// style.
func registry(t *testing.T, edits string) *cdi.Registry {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "gpu.yaml", "cdiVersion: 1.1.0\nkind: vendor.com/gpu\ndevices:\n- {name: a, containerEdits: "+edits+"}\n")
	return cdi.New([]string{dir})
}

// mappable is what is not a device, and known to the namespace.
func mappable(namespace, source string, _ bool) bool {
	return namespace == "/run/user" && !strings.HasPrefix(source, "/dev/")
}

// edit applies the edits of that device.
func edit(t *testing.T, s *specs.Spec, edits string) *specs.Spec {
	t.Helper()
	e, err := registry(t, edits).For(container("vendor.com/gpu=a"))
	if err != nil {
		t.Fatal(err)
	}
	e.Apply(s, mappable)
	return s
}

func same(t *testing.T, what string, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestDeviceNodesAreCompletedFromTheHost(t *testing.T) {
	s := edit(t, bare(), `{deviceNodes: [{path: /dev/gpu, hostPath: /dev/full, permissions: r}, {path: /dev/null, fileMode: 0600}, {path: /dev/gone, type: u, major: 4000, minor: 1, uid: 7, permissions: none}]}`)
	same(t, "nodes", s.Linux.Devices, `[{"path":"/dev/gpu","type":"c","major":1,"minor":7,"fileMode":438},{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384},{"path":"/dev/gone","type":"c","major":4000,"minor":1,"uid":7}]`)
	same(t, "rules", s.Linux.Resources.Devices, `[{"allow":true,"type":"c","major":1,"minor":7,"access":"r"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]`)
}

func TestDeviceNodesBelongToTheContainersUser(t *testing.T) {
	s := bare()
	s.Process.User = specs.User{UID: 1000, GID: 1001}
	edit(t, s, `{deviceNodes: [{path: /dev/full}, {path: /dev/null, uid: 0, gid: 5}]}`)
	same(t, "nodes", s.Linux.Devices, `[{"path":"/dev/full","type":"c","major":1,"minor":7,"fileMode":438,"uid":1000,"gid":1001},{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":438,"uid":0,"gid":5}]`)
}

func TestEditsReplaceWhatIsInTheirPlace(t *testing.T) {
	s := bare()
	s.Process.Env = []string{"A=old", "AB=1"}
	s.Process.User.AdditionalGids = []uint32{5}
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/full", Type: "c", Major: 9}}
	s.Mounts = []specs.Mount{{Destination: "/proc"}, {Destination: "/usr/lib/x.so", Source: "/old"}, {Destination: "/usr/lib/y/z"}}
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/first"}}}
	edit(t, s, `{env: [A=new, B=x=y], additionalGids: [0, 5, 44], deviceNodes: [{path: /dev/full}],
		mounts: [{hostPath: /new, containerPath: /usr/lib//x.so, options: [ro, rbind]}, {hostPath: /y, containerPath: /usr, type: bind}, {hostPath: tmpfs, containerPath: /t, type: tmpfs, options: [size=1m]}],
		hooks: [{hookName: createRuntime, path: /bin/hook, args: [hook, a], env: [X=1], timeout: 5}, {hookName: poststop, path: /bin/stop}]}`)
	same(t, "variables", s.Process.Env, `["A=new","AB=1","B=x=y"]`)
	same(t, "groups", s.Process.User.AdditionalGids, `[5,44]`)
	same(t, "nodes", s.Linux.Devices, `[{"path":"/dev/full","type":"c","major":1,"minor":7,"fileMode":438}]`)
	same(t, "mounts", s.Mounts, `[{"destination":"/proc"},{"destination":"/usr","type":"bind","source":"/y","options":["rbind"]},{"destination":"/t","type":"tmpfs","source":"tmpfs","options":["size=1m"]},{"destination":"/usr/lib/x.so","type":"bind","source":"/new","options":["ro","rbind"]},{"destination":"/usr/lib/y/z"}]`)
	same(t, "hooks", s.Hooks, `{"createRuntime":[{"path":"/first"},{"path":"/bin/hook","args":["hook","a"],"env":["X=1"],"timeout":5}],"poststop":[{"path":"/bin/stop"}]}`)
}

func TestWhatOnlyTheRuntimeCanJudgeIsPassedOn(t *testing.T) {
	s := edit(t, bare(), `{netDevices: [{hostInterfaceName: eth7, name: net0}], intelRdt: {closID: gold, l3CacheSchema: "L3:0=f"}}`)
	same(t, "network devices", s.Linux.NetDevices, `{"eth7":{"name":"net0"}}`)
	same(t, "RDT", s.Linux.IntelRdt, `{"closID":"gold","l3CacheSchema":"L3:0=f"}`)
}

func TestEditsOfAllDevicesComeOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "gpu.json", `{"cdiVersion":"0.5.0","kind":"vendor.com/gpu","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/bin/all"}]},
		"devices":[{"name":"a","containerEdits":{"env":["A=1"]}},{"name":"b","containerEdits":{"env":["B=1"]}}]}`)
	e, err := cdi.New([]string{dir}).For(container("vendor.com/gpu=a", "vendor.com/gpu=b"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // edits stay as they are
		s := bare()
		e.Apply(s, mappable)
		same(t, "hooks", s.Hooks, `{"createContainer":[{"path":"/bin/all"}]}`)
		same(t, "variables", s.Process.Env, `["A=1","B=1"]`)
	}
}

func TestUserNamespacesGetTheHostsNodesAndMappedMounts(t *testing.T) {
	s := bare()
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace, Path: "/run/user"}}
	edit(t, s, `{deviceNodes: [{path: /dev/gpu, hostPath: /dev/full}, {path: /dev/null}], mounts: [{hostPath: /a, containerPath: /a}, {hostPath: /b, containerPath: /b, options: [bind]}, {hostPath: /c, containerPath: /c, options: [rbind, idmap]}, {hostPath: /dev/null, containerPath: /d}]}`)
	same(t, "nodes", s.Linux.Devices, `[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":438}]`)
	same(t, "mounts", s.Mounts, `[{"destination":"/a","type":"bind","source":"/a","options":["rbind","ridmap"]},{"destination":"/b","type":"bind","source":"/b","options":["bind","idmap"]},{"destination":"/c","type":"bind","source":"/c","options":["rbind","idmap"]},{"destination":"/d","type":"bind","source":"/dev/null","options":["rbind"]},{"destination":"/dev/gpu","type":"bind","source":"/dev/full","options":["bind","rprivate","nosuid","noexec"]}]`)
	if n := len(s.Linux.Resources.Devices); n != 2 {
		t.Errorf("%d rules", n)
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	for edits, kind := range map[string]errs.Kind{
		`{deviceNodes: [{path: dev/null}]}`:                        errs.Invalid,
		`{deviceNodes: [{path: /}]}`:                               errs.Invalid,
		`{deviceNodes: [{path: /dev/x, hostPath: ../dev/null}]}`:   errs.Invalid,
		`{deviceNodes: [{path: "/dev/x\0", hostPath: /dev/null}]}`: errs.Invalid,
		`{deviceNodes: [{path: /dev/none-such}]}`:                  errs.NotFound,
		`{deviceNodes: [{path: /etc/passwd}]}`:                     errs.Invalid,
		`{deviceNodes: [{path: /dev/null, type: b}]}`:              errs.Invalid,
		`{mounts: [{hostPath: a, containerPath: /a}]}`:             errs.Invalid,
		`{mounts: [{hostPath: /a, containerPath: a}]}`:             errs.Invalid,
		`{mounts: [{hostPath: /a, containerPath: /../}]}`:          errs.Invalid,
		`{hooks: [{hookName: createRuntime, path: bin/hook}]}`:     errs.Invalid,
		`{env: ["A=\0"]}`: errs.Invalid,
		`{hooks: [{hookName: beforeAll, path: /bin/hook}]}`:                                errs.Invalid,
		`{deviceNodes: [{path: /dev/null, permissions: x}]}`:                               errs.Invalid,
		`{netDevices: [{hostInterfaceName: a, name: b}, {hostInterfaceName: a, name: c}]}`: errs.Invalid,
	} {
		got := refused(t, registry(t, edits), kind, container("vendor.com/gpu=a"))
		if !strings.Contains(got, "vendor.com/gpu=a") || !strings.Contains(got, "gpu.yaml") {
			t.Errorf("%s: %q does not say what and where", edits, got)
		}
	}
}
