package policy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/berth-run/berth/pkg/errs"
)

// maxNesting bounds how deep a document may be: nothing that is read here is
// deeper than eight.
const maxNesting = 16

// node is a value of a JSON document with its place. Unlike encoding/json it
// knows what was there: each key once, as it was written.
type node struct {
	place  string
	line   int
	value  any              // string, json.Number, bool, nil, []*node; map[string]*node
	fields map[string]*node // of an object
	keys   []string         // of an object, in order
}

// parseTree reads one JSON value. Its errors tell line and place.
func parseTree(data []byte) (*node, error) {
	p := treeParser{data: data, tokens: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.tokens.UseNumber()
	n, err := p.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.tokens.Token(); !errors.Is(err, io.EOF) {
		return nil, p.fault("", "there is more after the end")
	}
	return n, nil
}

type treeParser struct {
	data   []byte
	tokens *json.Decoder
	line   int // at the offset seen
	seen   int
}

func (p *treeParser) fault(place, format string, args ...any) error {
	return (&node{place: place, line: p.at()}).fault(format, args...)
}

// at returns the line of what was read last.
func (p *treeParser) at() int {
	end := int(p.tokens.InputOffset())
	p.line += bytes.Count(p.data[p.seen:end], []byte("\n"))
	p.seen = end
	return p.line
}

func (p *treeParser) token(place string) (json.Token, error) {
	t, err := p.tokens.Token()
	if errors.Is(err, io.EOF) {
		err = errors.New("it ends too early")
	}
	if err != nil {
		return nil, p.fault(place, "%v", err)
	}
	return t, nil
}

func (p *treeParser) value(place string, depth int) (*node, error) {
	t, err := p.token(place)
	if err != nil {
		return nil, err
	}
	n := &node{place: place, line: p.at(), value: t}
	delim, ok := t.(json.Delim)
	if !ok {
		return n, nil
	}
	if depth == maxNesting {
		return nil, n.fault("nested deeper than %d", maxNesting)
	}
	if delim == '[' {
		return n, p.list(n, depth+1)
	}
	return n, p.object(n, depth+1)
}

func (p *treeParser) list(n *node, depth int) error {
	items := []*node{}
	for p.tokens.More() {
		item, err := p.value(n.place+"["+strconv.Itoa(len(items))+"]", depth)
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	n.value = items
	_, err := p.token(n.place)
	return err
}

func (p *treeParser) object(n *node, depth int) error {
	n.fields = map[string]*node{}
	for p.tokens.More() {
		t, err := p.token(n.place)
		if err != nil {
			return err
		}
		key := t.(string) // Token sees to it
		place := within(n.place, key)
		if n.fields[key] != nil {
			return p.fault(place, "the key is there twice")
		}
		if n.fields[key], err = p.value(place, depth); err != nil {
			return err
		}
		n.keys = append(n.keys, key)
	}
	n.value = n.fields
	_, err := p.token(n.place)
	return err
}

// within names a key's place: transports.docker["quay.io"].
func within(place, key string) string {
	for _, r := range key {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' {
			return fmt.Sprintf("%s[%.200q]", place, key)
		}
	}
	if place == "" || key == "" {
		return place + key
	}
	return place + "." + key
}

// fault is an error at this place.
func (n *node) fault(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if n.place != "" {
		text = n.place + ": " + text
	}
	return fmt.Errorf("line %d: %s: %w", n.line, text, errs.Invalid)
}

func (n *node) kind() string {
	switch n.value.(type) {
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case nil:
		return "null"
	case []*node:
		return "a list"
	}
	return "an object"
}

// fields reads an object's fields. It keeps the first fault.
type fields struct {
	n    *node
	used []string
	err  error
}

// of begins to read n as an object; end tells of keys that nobody has read.
func of(n *node) *fields {
	f := &fields{n: n}
	if n.fields == nil {
		f.err = n.fault("it is %s, an object is wanted", n.kind())
	}
	return f
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) end() error {
	if f.err != nil {
		return f.err
	}
	for _, key := range f.n.keys {
		if !slices.Contains(f.used, key) {
			return f.n.fields[key].fault("the key is not known here")
		}
	}
	return nil
}

// get returns a field, or nil where there is none.
func (f *fields) get(key string) *node {
	f.used = append(f.used, key)
	return f.n.fields[key]
}

// must returns a field that has to be there; an empty one with the fault kept
// where it is not.
func (f *fields) must(key string) *node {
	n := f.get(key)
	if n == nil {
		f.fail(f.n.fault("the key %q is missing", key))
		return &node{}
	}
	return n
}

// text returns a string that is not empty, or "" where the key is absent.
func (f *fields) text(key string) string {
	n := f.get(key)
	if n == nil {
		return ""
	}
	return f.string(n)
}

func (f *fields) string(n *node) string {
	s, ok := n.value.(string)
	switch {
	case f.err != nil:
	case !ok:
		f.fail(n.fault("it is %s, a string is wanted", n.kind()))
	case s == "":
		f.fail(n.fault("it is empty"))
	}
	return s
}

// texts returns a list of strings that is not empty, or nil where the key is
// absent.
func (f *fields) texts(key string) []string {
	n := f.get(key)
	if n == nil {
		return nil
	}
	items, ok := n.value.([]*node)
	if !ok || len(items) == 0 {
		f.fail(n.fault("it is %s, a list with at least one string is wanted", n.kind()))
	}
	var out []string
	for _, item := range items {
		out = append(out, f.string(item))
	}
	return out
}

// decoded returns what a field holds in base64, one string or a list of them.
func (f *fields) decoded(key string, texts []string) [][]byte {
	var out [][]byte
	for _, s := range texts {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil && f.err == nil {
			f.fail(f.n.fields[key].fault("it is not base64: %v", err))
		}
		out = append(out, data)
	}
	return out
}

// one is a list of s, or nil where it is empty.
func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
