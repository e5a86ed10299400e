package libct

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// noting returns a hook that appends what it is told and the bundle's root path to a
// file, and then runs more.
func noting(name, file, more string) specs.Hook {
	// The state is one line of JSON; the bundle's path has no quotes in it.
	script := `read -r state || :; b=${state#*\"bundle\":\"}; b=${b%%\"*}; [ $0 = startContainer ] || printf "%s config %s\n" "$0" "$(cat "$b/config.json")" >>"$1"; printf "%s %s\n" "$0" "$state" >>"$1"; ` + more
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script, name, file}}
}

// noted returns what hooks were told, by name, and checks the bundles that they saw.
func noted(t *testing.T, root string, files ...string) map[string]specs.State {
	t.Helper()
	states := map[string]specs.State{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
			if config, ok := strings.CutPrefix(what, "config "); ok {
				var s specs.Spec
				if err := json.Unmarshal([]byte(config), &s); err != nil || s.Root.Path != root {
					t.Errorf("%s reads %.200q, %v", name, config, err)
				}
				continue
			}
			var s specs.State
			if err := json.Unmarshal([]byte(what), &s); err != nil {
				t.Errorf("%s is told %q: %v", name, what, err)
			}
			states[name] = s
		}
	}
	return states
}

func wantHooks(t *testing.T, when string, states map[string]specs.State, names ...string) {
	t.Helper()
	if len(states) != len(names) {
		t.Errorf("%s: hooks %v", when, states)
	}
	for _, name := range names {
		if s := states[name]; s.ID != "h1" || s.Bundle == "" || s.Annotations["a"] != "b" || s.Version == "" {
			t.Errorf("%s: %s is told %+v", when, name, s)
		}
	}
}

func TestHooksAreRunInTimeAndToldOfTheBundle(t *testing.T) {
	e := newEngine(t)
	s := baseSpec(t, "h1", "/bin/sleep", "1000")
	out, inside := filepath.Join(t.TempDir(), "out"), filepath.Join(s.Root.Path, "tmp/out")
	s.Annotations = map[string]string{"a": "b"}
	s.Process.Env = append(s.Process.Env, "LD_LIBRARY_PATH=/tmp")
	s.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{noting("prestart", out, "")}, //nolint:staticcheck // vendors still write it
		CreateRuntime:   []specs.Hook{noting("createRuntime", out, `[ -z "$GOMAXPROCS" ]`)},
		CreateContainer: []specs.Hook{noting("createContainer", out, `[ -z "$LD_LIBRARY_PATH" ] && ls / >/dev/null`)},
		StartContainer:  []specs.Hook{noting("startContainer", "/tmp/out", "")},
		Poststart:       []specs.Hook{noting("poststart", out, "")},
		Poststop:        []specs.Hook{noting("poststop", out, "exit 1"), noting("poststop2", out, "")},
	}
	b := create(t, e, "h1", s)
	states := noted(t, s.Root.Path, out, inside)
	wantHooks(t, "created", states, "prestart", "createRuntime", "createContainer")
	if got := states["createRuntime"]; got.Pid != b.p.PID || got.Status != specs.StateCreating {
		t.Errorf("createRuntime: %+v, the process is %d", got, b.p.PID)
	}
	again, err := New(e.opts) // as after the death of a worker
	if err != nil {
		t.Fatal(err)
	}
	b.e = again
	b.start()
	testutil.Await(t, 10*time.Second, func() error { // its hook runs once it is through the gate
		info, err := os.Stat(inside)
		if err == nil && info.Size() == 0 {
			err = errors.New("it has written nothing")
		}
		return err
	})
	states = noted(t, s.Root.Path, out, inside)
	wantHooks(t, "started", states, "prestart", "createRuntime", "createContainer", "startContainer", "poststart")
	if got := states["poststart"]; got.Pid != b.p.PID || got.Status != specs.StateRunning {
		t.Errorf("poststart: %+v, the process is %d", got, b.p.PID)
	}
	bundle := states["poststart"].Bundle
	if info, err := os.Stat(bundle); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("bundle: %v, %v", info, err)
	}
	if err := again.Destroy(t.Context(), "h1"); err != nil {
		t.Fatal("a hook that fails holds up the removal: ", err)
	}
	states = noted(t, s.Root.Path, out, inside)
	wantHooks(t, "removed", states, "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", "poststop2")
	if got := states["poststop"]; got.Pid != 0 || got.Status != specs.StateStopped || got.Bundle != bundle {
		t.Errorf("poststop: %+v", got)
	}
	if _, err := os.Stat(bundle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the bundle stays: %v", err)
	}
}

func TestHooksInAUserNamespaceReadTheirBundleAlone(t *testing.T) {
	e := newEngine(t)
	r := podOf(t, "hp", specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	r.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	r.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	createPod(t, e, r)
	s := join(baseSpec(t, "h1", "/bin/true"), r)
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil // berthd leaves them to the namespace
	dir := t.TempDir()                                  // beside the root file system, which all may pass
	if err := errors.Join(os.Chown(s.Root.Path, 100000, 200000), os.Chown(dir, 100000, 200000)); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Root: e.opts.Root, Bundles: filepath.Join(filepath.Dir(dir), "bundles")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := e.hooks.Make("other", &specs.Spec{Hooks: &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}}}, &configs.Config{})
	if err != nil || other == nil {
		t.Fatal(other, err)
	}
	s.Annotations = map[string]string{"a": "b"}
	s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{noting("createContainer", filepath.Join(dir, "out"), `! cat "${b%/*}/other/config.json" && ! ls "${b%/*}"`)}}
	b := create(t, e, "h1", s)
	wantHooks(t, "created", noted(t, s.Root.Path, filepath.Join(dir, "out")), "createContainer")
	if _, code := b.output(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestAHookThatFailsEndsWhatItIsOf(t *testing.T) {
	e := newEngine(t)
	failing := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no driver >&2; exit 3"}}}
	bundles := filepath.Join(e.opts.Root, bundlesDir)
	for name, h := range map[string]specs.Hooks{"createRuntime": {CreateRuntime: failing}, "createContainer": {CreateContainer: failing}} {
		s := baseSpec(t, "h2", "/bin/true")
		s.Hooks = &h
		_, err := e.Create(t.Context(), "h2", s, runtime.ProcessIO{})
		if err == nil || !strings.Contains(err.Error(), "no driver") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(bundles); err != nil || len(left) > 0 {
			t.Errorf("%s: left over %v, %v", name, left, err)
		}
	}
	s := baseSpec(t, "h2", "/bin/sleep", "1000")
	s.Hooks = &specs.Hooks{Poststart: failing}
	b := create(t, e, "h2", s)
	if err := e.Start(t.Context(), "h2", OpenGate); err == nil || !strings.Contains(err.Error(), "no driver") {
		t.Errorf("poststart: %v", err)
	}
	b.waited = true
	if code := wait(t, b.p); code != 137 {
		t.Errorf("exit %d", code)
	}
}

func TestContainersWithoutHooksHaveNoBundle(t *testing.T) {
	e := newEngine(t)
	s := baseSpec(t, "h3", "/bin/true")
	s.Hooks = &specs.Hooks{}
	create(t, e, "h3", s)
	if made, err := os.ReadDir(filepath.Join(e.opts.Root, bundlesDir)); err != nil || len(made) > 0 {
		t.Errorf("bundles %v, %v", made, err)
	}
}

func TestDestroyRemovesTheBundleOfWhatWasHalfMade(t *testing.T) {
	e := newEngine(t)
	s := baseSpec(t, "h4", "/bin/true")
	s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/false"}}}
	if _, err := e.hooks.Make("h4", s, &configs.Config{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(t.Context(), "h4", s, runtime.ProcessIO{}); !errors.Is(err, errs.Exists) {
		t.Errorf("over another's bundle: %v", err)
	}
	if err := e.Destroy(t.Context(), "h4"); err != nil {
		t.Fatal(err)
	}
	create(t, e, "h4", s)
}
