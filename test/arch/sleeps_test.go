package arch

import "go/ast"

// sleeps counts the calls of time.Sleep in a test file. Tests wait for events,
// or let the clock of testing/synctest run: files that import it are free.
// What remains, in exceptions.txt, are workloads that have to last and waits
// for another process that announces nothing.
func (s source) sleeps() int {
	if !s.Test || imports(s.File, "testing/synctest") {
		return 0
	}
	n := 0
	ast.Inspect(s.File, func(node ast.Node) bool {
		sel, ok := node.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Sleep" {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
			n++
		}
		return true
	})
	return n
}

// imports reports whether f imports path.
func imports(f *ast.File, path string) bool {
	for _, i := range f.Imports {
		if i.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}
