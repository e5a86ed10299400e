package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"github.com/berth-run/berth/pkg/config"
	"github.com/berth-run/berth/pkg/errs"
)

const documented = "../../config/berth.toml"

func TestDocumentedFileIsTheDefault(t *testing.T) {
	got, err := config.Load(documented)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(config.Default(), got, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
		t.Errorf("config/berth.toml differs from Default (-default +file):\n%s", d)
	}
}

func TestContainersDoNotInheritOurOpenFiles(t *testing.T) {
	for text, want := range map[string]config.Ulimit{
		"": {Soft: 1024, Hard: 524288},
		"[runtime.default_ulimits]\ncore = \"0\"":           {Soft: 1024, Hard: 524288},
		"[runtime.default_ulimits]\nnofile = \"5:1000000\"": {Soft: 5, Hard: 1000000},
	} {
		c, err := load(t, text)
		if got := c.Runtime.DefaultUlimits["nofile"]; got != want || err != nil {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

// TestDocumentedFileHasEveryKey decodes the file by itself: Load lays it over
// the defaults and would not notice a key that is missing.
func TestDocumentedFileHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(documented)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := toml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	hasKeys(t, "", reflect.TypeFor[config.Config](), file)
}

func hasKeys(t *testing.T, prefix string, typ reflect.Type, file map[string]any) {
	t.Helper()
	for _, f := range reflect.VisibleFields(typ) {
		key := f.Tag.Get("toml")
		if key == "" {
			continue
		}
		value, ok := file[key]
		if !ok {
			t.Errorf("%s%s is not documented", prefix, key)
			continue
		}
		table, isTable := value.(map[string]any)
		switch {
		case !isTable:
		case f.Type.Kind() == reflect.Struct:
			hasKeys(t, prefix+key+".", f.Type, table)
		case f.Type.Kind() == reflect.Map && f.Type.Elem().Kind() == reflect.Struct && len(table) > 0:
			for name, one := range table {
				if fields, ok := one.(map[string]any); ok { // else it has a text form
					hasKeys(t, prefix+key+"."+name+".", f.Type.Elem(), fields)
				}
			}
		}
	}
}

func load(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path)
}

func TestLoadLaysTheFileOverTheDefaults(t *testing.T) {
	got, err := load(t, `state = "/run/other"
[runtime.default_ulimits]
nofile = "1024:524288"
core = "unlimited"
[runtime.handlers.gpu]
annotations = ["example.com/*"]
[network.builtin]
subnet6 = "fd00::/64"
`)
	if err != nil {
		t.Fatal(err)
	}
	if got.Socket() != "/run/other/berth.sock" || got.Root != "/var/lib/berth" {
		t.Errorf("socket %s, root %s", got.Socket(), got.Root)
	}
	if u := got.Runtime.DefaultUlimits["nofile"]; u != (config.Ulimit{Soft: 1024, Hard: 524288}) {
		t.Errorf("nofile %+v", u)
	}
	if _, ok := got.Runtime.Handlers["berth"]; !ok || len(got.Runtime.Handlers) != 2 {
		t.Errorf("handlers %+v", got.Runtime.Handlers)
	}
	if got.Network.Builtin.Subnet6.String() != "fd00::/64" {
		t.Errorf("subnet6 %s", got.Network.Builtin.Subnet6)
	}
}

func TestLoadNamesTheFault(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "state = \"/run/x\"\nsate = 1\n", "berth.toml:2: sate: unknown key"},
		{"unknown key in a table", "[network]\nconf_dir = \"/x\"\nbin = 1\n", "berth.toml:3: network.bin: unknown key"},
		{"unknown table", "[netwrk]\nconf_dir = \"/x\"\n", "berth.toml:1: netwrk"},
		{"unknown key of a handler", "[runtime.handlers.gpu]\nbase = \"/x\"\n", "berth.toml:2: runtime.handlers.gpu.base: unknown key"},
		{"relative path of a handler", "[runtime.handlers.gpu]\npath = \"bin/crun\"\n", "runtime.handlers.gpu.path"},
		{"handler that no class names", "[runtime.handlers.\"../gpu\"]\npath = \"crun\"\n", "runtime.handlers.../gpu.path"},
		{"the built-in handler by a program", "[runtime.handlers.berth]\npath = \"crun\"\n", "runtime.handlers.berth.path: this handler is the built-in one"},
		{"state of no program", "[runtime.handlers.gpu]\nroot = \"/x\"\n", "runtime.handlers.gpu.root"},
		{"relative state of a program", "[runtime.handlers.gpu]\npath = \"crun\"\nroot = \"x\"\n", "runtime.handlers.gpu.root"},
		{"a form of layers of a handler", "[runtime.handlers.gpu]\nlayer_backend = \"erofs\"\n", "runtime.handlers.gpu.layer_backend"},
		{"seccomp of a handler", "[runtime.handlers.gpu]\nseccomp_profile = \"x\"\n", "runtime.handlers.gpu.seccomp_profile"},
		{"wrong type", "log_level = \"much\"\n", "berth.toml:1: log_level"},
		{"syntax", "root = \n", "berth.toml:1"},
		{"duration", "[network]\ntimeout = \"soon\"\n", "timeout"},
		{"relative path", "root = \"var\"\n", "root: \"var\" is not an absolute"},
		{"layers", "[image]\nlayer_backend = \"squashfs\"\n", "image.layer_backend"},
		{"driver", "[runtime]\ncgroup_driver = \"openrc\"\n", "runtime.cgroup_driver"},
		{"relative device specifications", "[runtime]\ncdi_spec_dirs = [\"/etc/cdi\", \"cdi\"]\n", "runtime.cdi_spec_dirs: \"cdi\""},
		{"handler", "[runtime]\ndefault_handler = \"kata\"\n", "runtime.default_handler"},
		{"seccomp", "[runtime]\nseccomp_profile = \"default\"\n", "runtime.seccomp_profile"},
		{"ulimit", "[runtime.default_ulimits]\nfiles = \"1\"\n", "runtime.default_ulimits"},
		{"ulimit order", "[runtime.default_ulimits]\nnofile = \"2:1\"\n", "above the hard limit"},
		{"subnet", "[network.builtin]\nsubnet = \"fd00::/64\"\n", "network.builtin.subnet"},
		{"relative certificates", "[image]\ncerts_dirs = [\"certs.d\"]\n", "image.certs_dirs"},
		{"relative registries.conf", "[image]\nregistries_conf = [\"registries.conf\"]\n", "image.registries_conf"},
		{"relative credentials", "[image]\nauth_files = [\"~/auth.json\"]\n", "image.auth_files"},
		{"proxy without a scheme", "[image.proxy]\nhttps = \"proxy:3128\"\n", "image.proxy.https: is not the URL of a proxy"},
		{"signature policy", "[image]\nsignature_policy = \"policy.json\"\n", "image.signature_policy"},
		{"signature policies", "[image]\nsignature_policy_dir = \"policies\"\n", "image.signature_policy_dir"},
		{"registries.d", "[image]\nregistries_d = [\"/a\", \"b\"]\n", "image.registries_d"},
		{"metrics address", "[telemetry]\nmetrics_address = \"unix://metrics.sock\"\n", "telemetry.metrics_address"},
		{"trace endpoint", "[telemetry]\ntrace_endpoint = \"collector\"\n", "telemetry.trace_endpoint"},
		{"sampling", "[telemetry]\ntrace_sampling_per_million = 1000001\n", "telemetry.trace_sampling_per_million"},
		{"plugins", "[nri]\nenable = \"yes\"\n", "nri.enable"},
		{"plugins' socket", "[nri]\nsocket_path = \"nri.sock\"\n", "nri.socket_path"},
		{"plugins' time", "[nri]\nplugin_request_timeout = \"0s\"\n", "nri.plugin_request_timeout"},
		{"socket length", "listen = \"/" + strings.Repeat("x", 107) + "\"\n", "listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("%v is not errs.Invalid", err)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	text, err := os.ReadFile(documented)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("[runtime.handlers.x]\nannotations = [\"\"]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := load(t, text)
		if err == nil && c.Validate() != nil {
			t.Errorf("Load gave what Validate refuses: %+v", c)
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{"64MiB": 64 << 20, "1GiB": 1 << 30, "1536KiB": 1536 << 10, "1000": 1000, "0": 0} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v", text, s, err)
		}
		if again, err := want.MarshalText(); err != nil || string(again) != text {
			t.Errorf("%d is written %q, %v", want, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1MB", "1.5GiB", "9999999999GiB", "64 MiB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken, as %d", text, s)
		}
	}
}
