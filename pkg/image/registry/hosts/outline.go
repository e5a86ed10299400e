package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/berth-run/berth/pkg/errs"
)

// maxDepth is more parts than any key has that is looked for.
const maxDepth = 6

// outline is where the keys of a TOML document are, and its tables in their
// order, which the decoder does not tell.
type outline struct {
	file   string
	lines  map[string]int
	tables [][]string // without those of arrays
}

// decode reads a TOML document into v. Unknown keys are no error.
func decode(file string, data []byte, v any) (outline, error) {
	o := outline{file: file, lines: map[string]int{}}
	if err := toml.Unmarshal(data, v); err != nil {
		var bad *toml.DecodeError
		if !errors.As(err, &bad) {
			return o, fmt.Errorf("%s: %w: %w", file, err, errs.Invalid)
		}
		line, _ := bad.Position()
		what := strings.TrimPrefix(bad.Error(), "toml: ")
		if key := strings.Join(bad.Key(), "."); key != "" && len(bad.Key()) <= maxDepth {
			what = key + ": " + what
		}
		return o, fmt.Errorf("%s:%d: %s: %w", file, line, what, errs.Invalid)
	}
	o.read(data)
	return o, nil
}

// read walks through a document that is known to be well formed.
func (o *outline) read(data []byte) {
	p := unstable.Parser{}
	p.Reset(data)
	arrays := map[string]int{} // how often an array's table came
	var table []string
	line, seen := 1, 0
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		at := seen
		for it := e.Key(); it.Next() && len(parts) <= maxDepth; {
			if len(parts) == 0 {
				at = int(it.Node().Raw.Offset)
			}
			parts = append(parts, string(it.Node().Data))
		}
		if at > seen && at <= len(data) {
			line += bytes.Count(data[seen:at], []byte{'\n'})
			seen = at
		}
		if len(parts) > maxDepth {
			continue
		}
		switch e.Kind {
		case unstable.ArrayTable:
			parent := place(arrays, parts[:len(parts)-1])
			arrays[parent+"\x00"+parts[len(parts)-1]]++
			table = parts
			o.lines[place(arrays, parts)] = line
		case unstable.Table:
			table = parts
			o.tables = append(o.tables, parts)
			o.lines[place(arrays, parts)] = line
		case unstable.KeyValue:
			if len(table)+len(parts) <= maxDepth {
				o.lines[place(arrays, append(table[:len(table):len(table)], parts...))] = line
			}
		}
	}
}

// place is a key with the index of each table of an array that it is in.
func place(arrays map[string]int, parts []string) string {
	key := ""
	for _, part := range parts {
		key += "\x00" + part
		if count := arrays[key]; count > 0 {
			key += "\x00" + strconv.Itoa(count-1)
		}
	}
	return key
}

// fault is what is wrong with a key: parts of its name and indices.
func (o outline) fault(what string, key ...any) error {
	k := ""
	line := 1
	for _, part := range key {
		k += "\x00" + fmt.Sprint(part)
		if l, ok := o.lines[k]; ok {
			line = l
		}
	}
	return fmt.Errorf("%s:%d: %s: %w", o.file, line, what, errs.Invalid)
}
