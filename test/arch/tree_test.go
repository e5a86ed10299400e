package arch

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the root of the module, seen from here.
const root = "../.."

// source is one Go file of the tree.
type source struct {
	// Path is relative to the root.
	Path string
	Text []byte
	File *ast.File
	Set  *token.FileSet
	Test bool
	// Generated files are under nobody's hand.
	Generated bool
}

// lines returns how many lines n takes.
func (s source) lines(n ast.Node) int {
	return s.Set.Position(n.End()).Line - s.Set.Position(n.Pos()).Line + 1
}

// length returns how many lines the file has.
func (s source) length() int {
	return s.Set.File(s.File.Pos()).LineCount()
}

// code returns how many of its lines hold code: the ends of all tokens but
// comments.
func (s source) code() int {
	file := s.Set.File(s.File.Pos())
	var scan scanner.Scanner
	scan.Init(token.NewFileSet().AddFile("", -1, file.Size()), s.Text, nil, 0)
	counted := map[int]bool{}
	for {
		pos, tok, text := scan.Scan()
		if tok == token.EOF {
			return len(counted)
		}
		if tok == token.SEMICOLON && text == "\n" {
			continue // not written, but inserted
		}
		first := file.Line(file.Pos(int(pos) - 1))
		for i := range 1 + strings.Count(text, "\n") {
			counted[first+i] = true
		}
	}
}

// sources parses every Go file of cmd, pkg and test.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	set := token.NewFileSet()
	for _, top := range []string{"cmd", "pkg", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			if strings.Contains(path, "/testdata/") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			all = append(all, source{Path: rel, Text: text, File: f, Set: set, Test: strings.HasSuffix(path, "_test.go"), Generated: ast.IsGenerated(f)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestEachPackageHasOneComment(t *testing.T) {
	comments, dirs := map[string][]string{}, map[string]bool{}
	for _, s := range sources(t) {
		dir := filepath.Dir(s.Path)
		if s.Test && strings.HasPrefix(dir, "pkg/") {
			continue // tests beside code; a package of tests alone has its comment in a test file
		}
		dirs[dir] = true
		if s.File.Doc != nil && !s.Generated {
			comments[dir] = append(comments[dir], filepath.Base(s.Path))
		}
	}
	for dir := range dirs {
		switch files := comments[dir]; {
		case len(files) == 0:
			t.Errorf("%s has no package comment", dir)
		case len(files) > 1:
			t.Errorf("%s has package comments in %s", dir, strings.Join(files, ", "))
		}
	}
}

// Only the re-exec hook of berth-runtime may do something before main.
func TestInitIsOnlyTheReexecHook(t *testing.T) {
	for _, s := range sources(t) {
		if s.Generated || s.Test || strings.HasPrefix(s.Path, "cmd/berth-runtime/") {
			continue
		}
		for _, d := range s.File.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: no init functions", s.Set.Position(f.Pos()))
			}
		}
	}
}

func TestCodeCountsNoCommentsAndBlanks(t *testing.T) {
	text := "// Package p is.\npackage p\n\n/* a\nb */\nvar x = `1\n2\n`\n\nfunc f() { // why\n\treturn\n}\n"
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "p.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := source{Text: []byte(text), File: f, Set: set}
	if got := s.code(); got != 7 {
		t.Errorf("%d lines of code, want 7", got)
	}
}
