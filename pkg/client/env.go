package client

import (
	"bufio"
	"io"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// maxEnvLine bounds a line of an env file.
const maxEnvLine = 1 << 20

// ParseEnv reads what -e takes: NAME=VALUE, or NAME alone, which takes the value
// from lookup and is left out where lookup has none.
func ParseEnv(s string, lookup func(string) (string, bool)) (kv *runtimeapi.KeyValue, ok bool, err error) {
	name, value, hasValue := strings.Cut(s, "=")
	if name == "" || strings.ContainsAny(s, "\x00") {
		return nil, false, fail(errs.Invalid, "environment %q: write NAME=VALUE, or NAME to pass on your own", s)
	}
	if !hasValue {
		if value, ok = lookup(name); !ok {
			return nil, false, nil
		}
	}
	return &runtimeapi.KeyValue{Key: name, Value: []byte(value)}, true, nil
}

// ReadEnvFile reads lines as -e takes them. Empty ones and those that begin
// with # are skipped; nothing is unquoted, as with Docker.
func ReadEnvFile(r io.Reader, lookup func(string) (string, bool)) ([]*runtimeapi.KeyValue, error) {
	var all []*runtimeapi.KeyValue
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEnvLine)
	for lines.Scan() {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		kv, ok, err := ParseEnv(line, lookup)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, kv)
		}
	}
	return all, lines.Err()
}
