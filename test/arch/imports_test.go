package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berth-run/berth/"

// goPackage is what is used of go list's output.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
	Module     *struct{ Main bool }
}

// list runs go list on patterns, from the root of the module, with the build
// tags of the shipped programs.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	c := exec.Command("go", append([]string{"list", "-e", "-tags", "seccomp netgo osusergo", "-json=ImportPath,Dir,Standard,Imports,Module"}, args...)...)
	c.Dir = root
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// ours lists the packages of this module.
func ours(t *testing.T) []goPackage {
	t.Helper()
	return list(t, "./pkg/...", "./cmd/...", "./test/...")
}

func TestImportsFollowTheRules(t *testing.T) {
	r := readRules(t)
	for _, p := range ours(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		line, ok := r.own(name)
		if !ok {
			t.Errorf("%s has no line in rules.txt", name)
			continue
		}
		for _, imported := range p.Imports {
			if inner, isOurs := strings.CutPrefix(imported, module); isOurs {
				if !r.mayImport(line, inner) {
					t.Errorf("%s must not import %s", name, inner)
				}
				continue
			}
			library, named := covering(r.foreign, imported)
			if named && !slices.Contains(r.foreign[library], line) {
				t.Errorf("%s must not import %s: that is for %s", name, imported, strings.Join(r.foreign[library], ", "))
			}
		}
	}
}

func TestProgramsDoNotLinkWhatIsForbidden(t *testing.T) {
	r := readRules(t)
	for program, forbidden := range r.forbidden {
		packages := list(t, "-deps", "./"+program)
		if len(packages) < 50 {
			t.Errorf("%s links only %d packages: is it there?", program, len(packages))
		}
		names := map[string]bool{}
		for _, f := range forbidden {
			names[f] = true
		}
		for _, p := range packages {
			if f, found := covering(names, p.ImportPath); found {
				t.Errorf("%s links %s (forbidden: %s); see go list -deps ./%s", program, p.ImportPath, f, program)
			}
		}
	}
}
