package cri

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/berth-run/berth/test/testutil"
)

var update = flag.Bool("update", false, "write README.md anew")

// TestTheTableSaysWhereEachFieldGoes compares fields.txt with CRI itself and with
// the functions that it names, and README.md with both.
func TestTheTableSaysWhereEachFieldGoes(t *testing.T) {
	tree := parsed{}
	var out bytes.Buffer
	out.WriteString("# What becomes of each call and each field\n\nMade of `fields.txt` and the code by `go test ./pkg/cri -update`; the test of the same name holds it.\n")
	out.WriteString("\n| RPC | where | |\n|---|---|---|\n")
	var answered []protoreflect.MessageDescriptor
	for _, m := range testutil.RPCs() {
		place, what := tree.serves(t, string(m.Name()))
		fmt.Fprintf(&out, "| %s | %s | %s |\n", m.Name(), place, what)
		answered = append(answered, m.Input())
	}
	out.WriteString("\nFields of the requests, `-` where none reads them.\n\n| field | read in | |\n|---|---|---|\n")
	lines := readLines(t)
	walk{t, lines, map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor, l line) {
		var places []string
		for _, p := range l.places {
			places = append(places, tree.reads(t, p, f))
		}
		if len(places) == 0 {
			places = []string{"-"}
		}
		fmt.Fprintf(&out, "| %s.%s | %s | %s |\n", f.Parent().Name(), f.Name(), strings.Join(places, " "), l.what)
		delete(lines, name(f))
	}}.messages(answered)
	for f := range lines {
		t.Errorf("fields.txt has %s, and no request that we answer does", f)
	}
	compare(t, "README.md", out.String())
}

// compare compares a file with what it should be, or makes it so.
func compare(t *testing.T, path, want string) {
	t.Helper()
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(got), want); d != "" {
		t.Errorf("%s is not what -update makes (-is +should be):\n%s", path, d)
	}
}

// line is one of fields.txt.
type line struct {
	places []string
	what   string
}

// deeper tells whether the fields below this one count.
func (l line) deeper() bool { return len(l.places) > 0 && !strings.HasPrefix(l.what, "refused: ") }

func readLines(t *testing.T) map[string]line {
	t.Helper()
	text, err := os.ReadFile("fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]line{}
	for n, s := range strings.Split(string(text), "\n") {
		if s == "" || s[0] == '#' {
			continue
		}
		parts := strings.Split(s, " | ")
		if len(parts) != 3 || parts[2] == "" {
			t.Fatalf("fields.txt:%d: MESSAGE.FIELD | FUNCTIONS | what becomes of it", n+1)
		}
		if _, twice := all[parts[0]]; twice {
			t.Errorf("fields.txt:%d: %s for the second time", n+1, parts[0])
		}
		l := line{what: parts[2]}
		if parts[1] != "-" {
			l.places = strings.Split(parts[1], ", ")
		}
		all[parts[0]] = l
	}
	return all
}

func name(f protoreflect.FieldDescriptor) string {
	return string(f.Parent().Name()) + "." + string(f.Name())
}

// walk visits the fields of requests, each message once. It does not go below
// what nobody reads.
type walk struct {
	t     *testing.T
	lines map[string]line
	seen  map[protoreflect.FullName]bool
	visit func(protoreflect.FieldDescriptor, line)
}

func (w walk) messages(next []protoreflect.MessageDescriptor) {
	for len(next) > 0 {
		m := next[0]
		next = next[1:]
		if w.seen[m.FullName()] {
			continue
		}
		w.seen[m.FullName()] = true
		var below []protoreflect.MessageDescriptor
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			l, ok := w.lines[name(f)]
			if !ok {
				w.t.Errorf("fields.txt has no line for %s", name(f))
				continue
			}
			w.visit(f, l)
			if f.Message() != nil && !f.IsMap() && l.deeper() {
				below = append(below, f.Message())
			}
		}
		next = append(below, next...)
	}
}

// parsed are the declarations of packages, by function, as far as they have been
// asked for.
type parsed map[string]map[string]declared

type declared struct {
	file string
	decl *ast.FuncDecl
}

// find returns a function by its name in fields.txt.
func (p parsed) find(t *testing.T, place string) (declared, bool) {
	t.Helper()
	dir, last := filepath.Split(place)
	pkg, function, _ := strings.Cut(last, ".")
	dir = filepath.Join("..", dir, pkg)
	if p[dir] == nil {
		p[dir] = map[string]declared{}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok {
					p[dir][receiver(d)+d.Name.Name] = declared{file, d}
				}
			}
		}
	}
	d, ok := p[dir][function]
	return d, ok
}

// receiver is a method's type and a dot.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	e := d.Recv.List[0].Type
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name + "."
	}
	return "?."
}

// reads returns the link to a function that mentions a field.
func (p parsed) reads(t *testing.T, place string, f protoreflect.FieldDescriptor) string {
	t.Helper()
	d, ok := p.find(t, place)
	if !ok {
		t.Errorf("%s: there is no %s", name(f), place)
		return ""
	}
	goName := camel(string(f.Name()))
	found := false
	ast.Inspect(d.decl, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		found = found || ok && (s.Sel.Name == "Get"+goName || s.Sel.Name == goName)
		return !found
	})
	if !found {
		t.Errorf("%s: %s does not mention it", name(f), place)
	}
	return link(place, d.file)
}

func link(place, file string) string {
	return fmt.Sprintf("[%s](%s)", place, strings.TrimPrefix(filepath.ToSlash(file), "../cri/"))
}

// camel is how protobuf calls a field in Go.
func camel(field string) string {
	var out string
	for part := range strings.SplitSeq(field, "_") {
		out += strings.ToUpper(part[:1]) + part[1:]
	}
	return out
}

// serves returns where an RPC is answered and what the method says of itself. One
// type of Groups has to have it: with two, Go would take neither, and what says
// Unimplemented would answer.
func (p parsed) serves(t *testing.T, rpc string) (place, what string) {
	t.Helper()
	var found []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Groups]()) {
		if len(f.Index) > 1 || f.Type.Kind() != reflect.Pointer {
			continue
		}
		if m, ok := f.Type.MethodByName(rpc); ok {
			found = append(found, "cri."+f.Type.Elem().Name()+"."+rpc)
			if file, _ := runtime.FuncForPC(m.Func.Pointer()).FileLine(m.Func.Pointer()); strings.HasSuffix(file, ".pb.go") {
				t.Errorf("%s is answered by generated code", rpc)
			}
		}
	}
	if len(found) != 1 {
		t.Errorf("%s is answered by %d types %s", rpc, len(found), found)
		return "", ""
	}
	d, ok := p.find(t, found[0])
	if !ok {
		t.Errorf("%s is answered by %s, which embeds it", rpc, found[0])
		return "", ""
	}
	said := new(doc.Package).Synopsis(d.decl.Doc.Text())
	return link(found[0], d.file), strings.TrimPrefix(said, rpc+" ")
}

func TestTheTableKnowsAllRPCs(t *testing.T) {
	var all []string
	for _, m := range testutil.RPCs() {
		all = append(all, string(m.Name()))
	}
	if len(all) != 43 {
		t.Errorf("%d RPCs", len(all))
	}
}

// The services put groups together by embedding, and what a group has must hide
// what answers Unimplemented. Without anything behind them our methods panic, or
// have nothing to say.
func TestNothingIsUnimplemented(t *testing.T) {
	for _, m := range testutil.RPCs() {
		service := reflect.ValueOf(runtimeService{})
		if m.Parent().Name() == "ImageService" {
			service = reflect.ValueOf(imageService{})
		}
		if status.Code(call(service.MethodByName(string(m.Name())))) == codes.Unimplemented {
			t.Errorf("%s is unimplemented", m.Name())
		}
	}
}

// call calls a method with nothing and returns its error.
func call(method reflect.Value) (err error) {
	defer func() {
		if wrong := recover(); wrong != nil {
			err = fmt.Errorf("panic: %v", wrong)
		}
	}()
	var args []reflect.Value
	for i := range method.Type().NumIn() {
		args = append(args, reflect.Zero(method.Type().In(i)))
	}
	results := method.Call(args)
	err, _ = results[len(results)-1].Interface().(error)
	return err
}
