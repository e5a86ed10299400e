package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// RawEnv returns p's environment as bytes where any of it is not UTF-8, and nil
// where JSON strings can carry it. The wire and the disk take it beside the
// specification (runtime.CreateRequest.Env).
func RawEnv(p *specs.Process) [][]byte {
	if !slices.ContainsFunc(p.Env, func(s string) bool { return !utf8.ValidString(s) }) {
		return nil
	}
	out := make([][]byte, len(p.Env))
	for i, kv := range p.Env {
		out[i] = []byte(kv)
	}
	return out
}

// SetRawEnv puts an environment that RawEnv returned back into p; nil changes
// nothing.
func SetRawEnv(p *specs.Process, raw [][]byte) {
	if raw == nil {
		return
	}
	p.Env = make([]string, len(raw))
	for i, kv := range raw {
		p.Env[i] = string(kv)
	}
}

// environment joins, later winning: a default PATH, the image's ENV, TERM with
// a terminal, HOSTNAME, the configuration. HOME is the user's where none of
// them sets it.
func (b *builder) environment() ([]string, error) {
	e := newEnv()
	for _, kv := range slices.Concat([]string{defaultPath}, b.Image.Env) {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			continue // ENV without a value was never valid; others drop it too
		}
		if err := e.set(name, value); err != nil {
			return nil, fmt.Errorf("image environment: %w", err)
		}
	}
	if b.Container.GetTty() {
		e.values["TERM"] = cmp.Or(e.values["TERM"], "xterm")
		e.note("TERM")
	}
	if b.UTSName != "" {
		if err := e.set("HOSTNAME", b.UTSName); err != nil {
			return nil, err
		}
	}
	for _, kv := range b.Container.GetEnvs() {
		if err := e.set(kv.GetKey(), string(kv.GetValue())); err != nil {
			return nil, err
		}
	}
	if e.values["HOME"] == "" {
		if err := e.set("HOME", cmp.Or(b.User.Home, "/")); err != nil {
			return nil, err
		}
	}
	return e.list(), nil
}

// env keeps variables in the order in which they were first set.
type env struct {
	values map[string]string
	order  []string
	seen   map[string]bool
}

func newEnv() *env { return &env{values: map[string]string{}, seen: map[string]bool{}} }

func (e *env) set(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return fmt.Errorf("environment variable %q is malformed: %w", name, errs.Invalid)
	}
	e.values[name] = value
	e.note(name)
	return nil
}

func (e *env) note(name string) {
	if !e.seen[name] {
		e.seen[name] = true
		e.order = append(e.order, name)
	}
}

func (e *env) list() []string {
	out := make([]string, len(e.order))
	for i, name := range e.order {
		out[i] = name + "=" + e.values[name]
	}
	return out
}
