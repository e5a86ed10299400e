package spec_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

func TestCommandAndArgsAgainstEntrypointAndCmd(t *testing.T) {
	for _, c := range []struct {
		command, args, entrypoint, cmd, want []string
	}{
		{nil, nil, []string{"e"}, []string{"c"}, []string{"e", "c"}},
		{nil, []string{"a"}, []string{"e"}, []string{"c"}, []string{"e", "a"}},
		{[]string{"x"}, nil, []string{"e"}, []string{"c"}, []string{"x"}},
		{[]string{"x"}, []string{"a"}, []string{"e"}, []string{"c"}, []string{"x", "a"}},
		{nil, nil, nil, []string{"c"}, []string{"c"}},
		{nil, []string{"a"}, nil, []string{"c"}, []string{"a"}},
		{nil, nil, nil, nil, nil},
		{[]string{""}, nil, nil, nil, nil},
		{[]string{"a\x00b"}, nil, nil, nil, nil},
	} {
		in := input()
		in.Container.Command, in.Container.Args = c.command, c.args
		in.Image.Entrypoint, in.Image.Cmd = c.entrypoint, c.cmd
		if c.want == nil {
			refused(t, in, errs.Invalid)
			continue
		}
		if d := cmp.Diff(c.want, build(t, in).Process.Args); d != "" {
			t.Error(d)
		}
	}
}

func TestEnvironment(t *testing.T) {
	in := input()
	in.Image.Env = []string{"PATH=/img", "A=image", "NOVALUE", "HOME=", "E==x"}
	in.User.Home = "/home/u"
	in.Container.Tty = true
	in.Container.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("cri")}, {Key: "N", Value: []byte("two\nlines")}}
	want := []string{"PATH=/img", "A=cri", "HOME=/home/u", "E==x", "TERM=xterm", "HOSTNAME=pod", "N=two\nlines"}
	if d := cmp.Diff(want, build(t, in).Process.Env); d != "" {
		t.Error(d)
	}
	for _, bad := range []*cri.KeyValue{{Key: ""}, {Key: "A=B"}, {Key: "A\x00"}, {Key: "A", Value: []byte("\x00")}} {
		in.Container.Envs = []*cri.KeyValue{bad}
		refused(t, in, errs.Invalid)
	}
}

func TestEnvironmentSurvivesAsBytes(t *testing.T) {
	in := input()
	if spec.RawEnv(build(t, in).Process) != nil {
		t.Error("plain text needs no bytes")
	}
	in.Container.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte{0xff, 0xfe, 'x'}}}
	sent := build(t, in).Process
	raw, err := json.Marshal(spec.RawEnv(sent))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got specs.Process
	var env [][]byte
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &env); err != nil {
		t.Fatal(err)
	}
	spec.SetRawEnv(&got, env)
	if !slices.Contains(got.Env, "RAW=\xff\xfex") || !slices.Equal(got.Env, sent.Env) {
		t.Errorf("%q", got.Env)
	}
}

func TestWorkingDirectory(t *testing.T) {
	for _, c := range []struct{ configured, image, want string }{
		{"", "", "/"},
		{"", "/img", "/img"},
		{"/cri", "/img", "/cri"},
		{"rel", "", "/rel"},
		{"/a/../..", "", "/"},
		{"/process", "", "/process"},
		{"", "/proc/self/fd/7", ""},
		{"", "//proc/./self/fd/7", ""},
		{"/x\x00", "", ""},
	} {
		in := input()
		in.Container.WorkingDir, in.Image.WorkingDir = c.configured, c.image
		if c.want == "" {
			refused(t, in, errs.Invalid)
			continue
		}
		if got := build(t, in).Process.Cwd; got != c.want {
			t.Errorf("%q, %q: got %q", c.configured, c.image, got)
		}
	}
}

func TestExecIsTheContainersProcessWithAnotherCommand(t *testing.T) {
	in := input()
	in.User = spec.User{UID: 5, GID: 6, Additional: []uint32{6}}
	security(in).NoNewPrivs = true
	base := build(t, in)
	before := slices.Clone(base.Process.Env)
	got := spec.Exec(base, []string{"sh", "-c", "true"}, true)
	want := *base.Process
	want.Args, want.Terminal, want.Env = []string{"sh", "-c", "true"}, true, append(slices.Clone(before), "TERM=xterm")
	want.OOMScoreAdj = nil // the container's, of when it is executed
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	if !slices.Equal(base.Process.Env, before) || base.Process.Terminal {
		t.Error("base was changed")
	}
}

func TestOOMScoreStaysWithinWhatTheHostAllows(t *testing.T) {
	for _, c := range []struct {
		asked          int64
		host, min, got int
	}{
		{-998, -1000, 0, -998}, {-998, 0, 0, 0}, {-998, -1000, -500, -500}, {1000, 0, 0, 1000}, {5000, 0, 0, 1000}, {0, -1000, 0, 0},
	} {
		in := input()
		in.Container.Linux.Resources = &cri.LinuxContainerResources{OomScoreAdj: c.asked}
		in.Host.OOMScoreAdjMin, in.Options.OOMScoreAdjMin = c.host, c.min
		if got := *build(t, in).Process.OOMScoreAdj; got != c.got {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

// The runtime would mount the host's device of the name that it has inside.
func TestUserNamespacesGetDevicesByMounts(t *testing.T) {
	in := input()
	id := []*cri.IDMapping{{HostId: 100000, Length: 65536}}
	in.Pod.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{UsernsOptions: &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: id, Gids: id}}}
	in.Container.Devices = []*cri.Device{{HostPath: "/dev/dri/card0", ContainerPath: "/dev/gpu"}, {HostPath: "/dev/fuse"}}
	s := build(t, in)
	if m := mountAt(t, s, "/dev/gpu"); m.Source != "/dev/dri/card0" || m.Type != "bind" {
		t.Errorf("got %+v", m)
	}
	if len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/fuse" || len(s.Linux.Resources.Devices) != 3 {
		t.Errorf("nodes %v, rules %v", s.Linux.Devices, s.Linux.Resources.Devices)
	}
}

func TestDevices(t *testing.T) {
	in := input()
	in.Container.Devices = []*cri.Device{{HostPath: "/dev/dri", ContainerPath: "/dev/gpu", Permissions: "r"}, {HostPath: "/dev/fuse"}}
	s := build(t, in)
	var paths, access []string
	for _, d := range s.Linux.Devices {
		paths = append(paths, d.Path)
	}
	for _, r := range s.Linux.Resources.Devices {
		access = append(access, r.Access)
	}
	if d := cmp.Diff([]string{"/dev/gpu/card0", "/dev/gpu/renderD128", "/dev/fuse"}, paths); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"rwm", "r", "r", "rwm"}, access); d != "" || s.Linux.Resources.Devices[0].Allow {
		t.Error(d)
	}
	for _, bad := range []*cri.Device{{HostPath: "dev/fuse"}, {HostPath: "/dev/fuse", Permissions: "rx"}, {HostPath: "/dev/fuse", ContainerPath: "/"}} {
		in.Container.Devices = []*cri.Device{bad}
		refused(t, in, errs.Invalid)
	}
	in.Container.Devices = []*cri.Device{{HostPath: "/dev/none"}}
	refused(t, in, errs.NotFound)
}
