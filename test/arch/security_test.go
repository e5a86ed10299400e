package arch

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namedTest is how SECURITY.md names a test: directory and function.
var namedTest = regexp.MustCompile("`([a-z0-9/-]+)\\.(Test[A-Za-z0-9]+)`")

func TestEveryPastHoleHasATest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Past holes of runtimes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	if !found {
		t.Fatal("SECURITY.md has no past holes")
	}
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.File.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.Test && f.Recv == nil {
				there[filepath.Dir(s.Path)+"."+f.Name.Name] = true
			}
		}
	}
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") || strings.HasPrefix(line, "| class ") {
			continue
		}
		rows++
		tests := namedTest.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named: %s", line)
		}
		for _, m := range tests {
			if name := m[1] + "." + m[2]; !there[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if rows == 0 {
		t.Error("the table is empty")
	}
}
