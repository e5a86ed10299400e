package program

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
)

// tree makes a root file system of files by mode, and of links.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "usr/bin", "srv", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"usr/bin/run": 0o755, "bin/plain": 0o644, "srv/tool": 0o700} {
		if err := os.WriteFile(filepath.Join(root, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"bin/run": "/usr/bin/run", "bin/out": "/../../../../../../../bin/sh", "bin/loop": "loop", "bin/gone": "/bin/none", "lib": "mnt/lib"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCheckTellsAProgramThatIsMissingFromOneThatCannotBeExecuted(t *testing.T) {
	root := tree(t)
	for name, want := range map[string]errs.Kind{
		"run": "", "/bin/run": "", "/usr/bin/run": "", "tool": errs.NoProgram, "./tool": "", "../bin/run": "", "../../bin/run": "",
		"none": errs.NoProgram, "/bin/none": errs.NoProgram, "./none": errs.NoProgram, "/bin/gone": errs.NoProgram,
		"plain": errs.NoProgram, "/bin/plain": errs.NoExecutable, "/bin": errs.NoExecutable, "./": errs.NoExecutable,
		"/bin/plain/x": errs.NoExecutable, "/bin/loop": errs.NoExecutable, "/bin/out": errs.NoProgram,
		"/mnt/none": "", "/mnt": "", "/lib/none": "", "/mntx": errs.NoProgram,
	} {
		p := &specs.Process{Args: []string{name}, Cwd: "/srv", Env: []string{"PATH=/none", "PATH=:/usr/bin:/bin:relative"}}
		if got := errs.Of(Check(root, []specs.Mount{{Destination: "/mnt"}}, p)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, p := range []*specs.Process{{Args: []string{"none"}, Env: []string{"PATH=/bin:/mnt/bin"}}, {Args: []string{"./none"}, Cwd: "/mnt"}} {
		if err := Check(root, []specs.Mount{{Destination: "/mnt"}}, p); err != nil {
			t.Errorf("what may be below a mount: %v", err)
		}
	}
	if err := Check(root, nil, &specs.Process{Args: []string{"run"}}); !errors.Is(err, errs.NoProgram) {
		t.Errorf("without a PATH: %v", err)
	}
	if err := Check(root+"/none", nil, &specs.Process{Args: []string{"run"}}); err != nil {
		t.Errorf("without a root: %v", err)
	}
}

func TestBlameTellsOfALinkWhereSomethingIsToBeMounted(t *testing.T) {
	root, p := tree(t), &specs.Process{Args: []string{"/usr/bin/run"}}
	for name, make := range map[string]func(path string) error{
		"proc": func(path string) error { return os.Symlink("/bin", path) },
		"sys":  func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"dev":  func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		if err := make(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for m, want := range map[*specs.Mount]string{
		{Destination: "/proc", Type: "proc"}: "the image's /proc is a link", {Destination: "/sys", Type: "sysfs"}: "the image's /sys is no directory",
		{Destination: "/dev", Type: "tmpfs"}: "", {Destination: "/none", Type: "tmpfs"}: "",
		{Destination: "/proc", Type: "bind"}: "", // which may be on a file
	} {
		err := Blame(errors.New("odd"), root, []specs.Mount{*m}, p)
		if (want == "") != (errs.Of(err) == "") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s on %s: %v", m.Type, m.Destination, err)
		}
	}
}

func TestBlameKeepsKindsThatAreThere(t *testing.T) {
	root, p := tree(t), &specs.Process{Args: []string{"/bin/none"}}
	for _, err := range []error{errs.Conflict, errors.New("odd")} {
		got := Blame(err, root, nil, p)
		want := errs.Of(err)
		if want == "" {
			want = errs.NoProgram
		}
		if !errors.Is(got, err) || errs.Of(got) != want {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	p.Args[0] = "/usr/bin/run"
	if err := Blame(errors.New("odd"), root, nil, p); err.Error() != "odd" {
		t.Errorf("a program that is there: %v", err)
	}
}
