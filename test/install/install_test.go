// Package install tests contrib/install.sh on a copy of the tree that has
// programs of a line, below a DESTDIR.
package install

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is a copy of the tree and the directory that is installed to.
type tree struct {
	t         *testing.T
	dir, dest string
}

// newTree copies what install.sh reads, with a build of the given version.
func newTree(t *testing.T, version string) *tree {
	t.Helper()
	x := &tree{t: t, dir: t.TempDir(), dest: t.TempDir()}
	for _, path := range []string{"contrib", "config"} {
		if err := os.CopyFS(filepath.Join(x.dir, path), os.DirFS(filepath.Join("../..", path))); err != nil {
			t.Fatal(err)
		}
	}
	x.build(version)
	return x
}

// build makes bin/, whose files say of which version they are.
func (x *tree) build(version string) {
	x.t.Helper()
	for _, p := range []string{"berthd", "berth-runtime", "berth", "berth-bench", "cni/bridge", "cni/portmap"} {
		x.write(filepath.Join(x.dir, "bin", p), p+" "+version)
	}
}

func (x *tree) write(path, text string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		x.t.Fatal(err)
	}
}

// run runs install.sh.
func (x *tree) run(verb string) {
	x.t.Helper()
	c := exec.Command(filepath.Join(x.dir, "contrib/install.sh"), verb)
	c.Env = append(os.Environ(), "DESTDIR="+x.dest, "PREFIX=/opt/berth")
	if out, err := c.CombinedOutput(); err != nil {
		x.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
}

// at is the path of an installed file.
func (x *tree) at(path string) string { return filepath.Join(x.dest, path) }

// want compares installed files with what they should hold; "" is no file.
func (x *tree) want(want map[string]string) {
	x.t.Helper()
	got := map[string]string{}
	for path := range want {
		data, err := os.ReadFile(x.at(path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.t.Fatal(err)
		}
		got[path] = string(data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		x.t.Error(diff)
	}
}

// files lists what is installed.
func (x *tree) files() []string {
	x.t.Helper()
	var out []string
	err := filepath.WalkDir(x.dest, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, strings.TrimPrefix(path, x.dest))
		}
		return err
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return out
}

func TestInstallPutsAllInPlaceAndUninstallTakesItAway(t *testing.T) {
	x := newTree(t, "1")
	x.run("install")
	all := []string{
		"/etc/apparmor.d/berth-default", "/etc/berth/berth.toml", "/etc/systemd/system/berth-runtime.service", "/etc/systemd/system/berthd.service",
		"/opt/berth/bin/berth", "/opt/berth/bin/berth-bench", "/opt/berth/bin/berth-runtime", "/opt/berth/bin/berthd",
		"/opt/berth/share/berth/plugins.sha256", "/opt/cni/bin/bridge", "/opt/cni/bin/portmap",
	}
	if diff := cmp.Diff(all, x.files()); diff != "" {
		t.Error(diff)
	}
	for _, u := range []string{"berthd", "berth-runtime"} {
		unit, err := os.ReadFile(x.at("/etc/systemd/system/" + u + ".service"))
		if err != nil || !strings.Contains(string(unit), "\nExecStart=/opt/berth/bin/"+u+" ") {
			t.Errorf("%s: %v\n%s", u, err, unit)
		}
	}
	if info, err := os.Stat(x.at("/opt/berth/bin/berthd")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	x.run("uninstall")
	if left := x.files(); !slices.Equal(left, []string{"/etc/berth/berth.toml"}) {
		t.Errorf("left: %v", left)
	}
	x.run("uninstall") // of nothing
}

func TestAnUpgradeReplacesOurPluginsAndKeepsTheConfiguration(t *testing.T) {
	x := newTree(t, "1")
	x.run("install")
	x.write(x.at("/etc/berth/berth.toml"), "# mine")
	x.build("2")
	x.run("install")
	x.want(map[string]string{
		"/opt/cni/bin/bridge": "cni/bridge 2", "/opt/cni/bin/portmap": "cni/portmap 2", "/opt/berth/bin/berthd": "berthd 2", "/etc/berth/berth.toml": "# mine",
	})
}

func TestPluginsOfOthersAreNeitherReplacedNorRemoved(t *testing.T) {
	x := newTree(t, "1")
	x.write(x.at("/opt/cni/bin/bridge"), "somebody's")
	x.write(x.at("/opt/cni/bin/other"), "somebody's")
	theirs := map[string]string{"/opt/cni/bin/bridge": "somebody's", "/opt/cni/bin/other": "somebody's"}
	x.run("install")
	x.want(theirs)
	x.build("2")
	x.run("install")
	x.want(theirs)
	x.write(x.at("/opt/cni/bin/portmap"), "somebody's now") // an add-on came after us
	x.build("3")
	x.run("install")
	later := maps.Clone(theirs)
	later["/opt/cni/bin/portmap"] = "somebody's now"
	x.want(later)
	x.run("uninstall")
	x.want(later)
}
