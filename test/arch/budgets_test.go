package arch

import (
	"bufio"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// budgets are how large things may grow before they are split by concept.
// They are lines, but for types. A package is its lines of code, without
// tests, blanks and comments, so that nobody saves on comments. Generated
// files are not counted.
var budgets = map[string]int{
	"file":      400,
	"function":  60,
	"package":   1500,
	"type":      25, // methods
	"interface": 5,  // methods of its own
	"sleeps":    0,  // calls of time.Sleep in a package's tests, see sleeps_test.go
}

// measured is one thing that has a budget.
type measured struct {
	kind, name string
	size       int
}

func TestSizesStayWithinBudget(t *testing.T) {
	exceptions := readExceptions(t)
	for _, m := range measureAll(sources(t)) {
		limit := budgets[m.kind]
		if m.size <= limit {
			continue
		}
		key := m.kind + " " + m.name
		allowed, excepted := exceptions[key]
		delete(exceptions, key)
		if !excepted || m.size > allowed {
			t.Errorf("%s %s: %d of %d", m.kind, m.name, m.size, max(limit, allowed))
		}
	}
	for key := range exceptions {
		t.Errorf("exceptions.txt: %s is within its budget, or gone", key)
	}
}

// readExceptions reads exceptions.txt: the limit for each kind and name.
func readExceptions(t *testing.T) map[string]int {
	t.Helper()
	f, err := os.Open("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	exceptions := map[string]int{}
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		if strings.HasPrefix(s.Text(), "#") || s.Text() == "" {
			continue
		}
		fields := strings.Fields(s.Text())
		if len(fields) < 6 {
			t.Fatalf("exceptions.txt:%d: KIND NAME LIMIT and a reason of some words", n)
		}
		limit, err := strconv.Atoi(fields[2])
		if _, known := budgets[fields[0]]; err != nil || !known {
			t.Fatalf("exceptions.txt:%d: kind %q, limit %q", n, fields[0], fields[2])
		}
		exceptions[fields[0]+" "+fields[1]] = limit
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return exceptions
}

// measureAll measures everything that has a budget.
func measureAll(all []source) []measured {
	var found []measured
	packages, methods, sleeping := map[string]int{}, map[string]int{}, map[string]int{}
	for _, s := range all {
		if s.Generated {
			continue
		}
		dir := filepath.Dir(s.Path)
		found = append(found, measured{"file", s.Path, s.length()})
		if !s.Test {
			packages[dir] += s.code()
		}
		sleeping[dir] += s.sleeps()
		for _, d := range s.File.Decls {
			found = append(found, measureDecl(s, dir, d, methods)...)
		}
	}
	for dir, n := range packages {
		found = append(found, measured{"package", dir, n})
	}
	for dir, n := range sleeping {
		found = append(found, measured{"sleeps", dir, n})
	}
	for name, n := range methods {
		found = append(found, measured{"type", name, n})
	}
	return found
}

// measureDecl measures functions and interfaces, and counts methods.
func measureDecl(s source, dir string, d ast.Decl, methods map[string]int) []measured {
	var found []measured
	switch d := d.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			receiver := typeName(d.Recv.List[0].Type)
			methods[dir+"."+receiver]++
			name = receiver + "." + name
		}
		found = append(found, measured{"function", fmt.Sprintf("%s:%s", s.Path, name), s.lines(d)})
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if i, ok := t.Type.(*ast.InterfaceType); ok {
				found = append(found, measured{"interface", dir + "." + t.Name.Name, ownMethods(i)})
			}
		}
	}
	return found
}

// ownMethods counts the methods that an interface lists; embedded interfaces
// have budgets of their own.
func ownMethods(i *ast.InterfaceType) int {
	n := 0
	for _, f := range i.Methods.List {
		n += len(f.Names)
	}
	return n
}

// typeName is the name of a receiver's type.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return "?"
	}
}
