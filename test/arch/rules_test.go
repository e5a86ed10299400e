package arch

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"
)

// rules is rules.txt.
type rules struct {
	// internal is what each package of this module may import.
	internal map[string][]string
	// foreign is who may import each library that is not free.
	foreign map[string][]string
	// forbidden is what must not be in the closure of a program.
	forbidden map[string][]string
}

// readRules reads rules.txt.
func readRules(t *testing.T) rules {
	t.Helper()
	f, err := os.Open("rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rules{internal: map[string][]string{}, foreign: map[string][]string{}, forbidden: map[string][]string{}}
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, rest, ok := strings.Cut(text, ":")
		if !ok {
			t.Fatalf("rules.txt:%d: no colon", n)
		}
		if program, found := strings.CutPrefix(name, "!"); found {
			r.forbidden[program] = strings.Fields(rest)
			continue
		}
		if _, twice := r.internal[name]; twice {
			t.Fatalf("rules.txt:%d: %s has two lines", n, name)
		}
		internal, foreign, _ := strings.Cut(rest, "|")
		r.internal[name] = strings.Fields(internal)
		for _, library := range strings.Fields(foreign) {
			r.foreign[library] = append(r.foreign[library], name)
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// covering returns the longest of names that is path or a parent of it.
func covering[V any](names map[string]V, path string) (string, bool) {
	best, found := "", false
	for name := range names {
		if (path == name || strings.HasPrefix(path, name+"/")) && len(name) >= len(best) {
			best, found = name, true
		}
	}
	return best, found
}

// own returns the line for a package of this module. Only internal and test
// cover what is below them: every other package has its own line.
func (r rules) own(pkg string) (string, bool) {
	name, ok := covering(r.internal, pkg)
	if ok && name != pkg && name != "pkg/internal" && name != "test" {
		return "", false
	}
	return name, ok
}

// mayImport reports whether the package with that line may import another
// package of this module.
func (r rules) mayImport(line, imported string) bool {
	if strings.HasPrefix(imported, "pkg/internal/") {
		return true
	}
	allowed := r.internal[line]
	return slices.Contains(allowed, "*") || slices.Contains(allowed, strings.TrimPrefix(imported, "pkg/"))
}

func TestCoveringTakesTheLongestName(t *testing.T) {
	names := map[string]int{"a/b": 1, "a/b/c": 2}
	for path, want := range map[string]string{"a/b": "a/b", "a/b/c/d": "a/b/c", "a/b/x": "a/b", "a/bc": "", "a": ""} {
		if got, _ := covering(names, path); got != want {
			t.Errorf("covering(%q) = %q, want %q", path, got, want)
		}
	}
}
