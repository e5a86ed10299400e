package hooks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/test/testutil"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shell(script string) []specs.Hook {
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}
}

// made returns a bundle with these hooks after the start and the end.
func made(t *testing.T, c *configs.Config, poststart, poststop []specs.Hook) *Bundle {
	t.Helper()
	b, err := open(t).Make("c", &specs.Spec{Hooks: &specs.Hooks{Poststart: poststart, Poststop: poststop}}, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOnlyHooksMakeABundle(t *testing.T) {
	s := open(t)
	for _, h := range []*specs.Hooks{nil, {}} {
		c := &configs.Config{Labels: []string{"bundle=/"}}
		b, err := s.Make("c", &specs.Spec{Hooks: h}, c)
		if b != nil || err != nil {
			t.Fatal(b, err)
		}
		if err := errors.Join(b.Run(t.Context(), Poststart, 1), b.Remove()); err != nil || !slices.Equal(c.Labels, []string{"bundle=/"}) {
			t.Error(c.Labels, err)
		}
	}
	for _, id := range []string{"", ".", "..", "../c", "a/b", "/c"} {
		if _, err := s.Make(id, &specs.Spec{Hooks: &specs.Hooks{Poststop: shell("")}}, &configs.Config{}); !errors.Is(err, errs.Invalid) && !errors.Is(err, errs.Exists) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestABundleIsKnownByItsLabelAlone(t *testing.T) {
	c := &configs.Config{Labels: []string{"a=b", "bundle=/work"}}
	b := made(t, c, nil, shell(""))
	s := &Store{filepath.Dir(b.path)}
	if got := s.Of("c", c.Labels); got == nil || got.path != b.path || len(c.Labels) != 2 {
		t.Errorf("got %v of %q", got, c.Labels)
	}
	if got := s.Of("d", c.Labels); got != nil {
		t.Errorf("another container's: %v", got)
	}
}

func TestLibcontainersHooksAreBoundedAndGetNoneOfOurEnvironment(t *testing.T) {
	t.Setenv("PATH", "/some/bin")
	second := time.Second
	c := &configs.Config{Hooks: configs.Hooks{
		configs.Prestart:       {configs.NewFunctionHook(nil)},
		configs.CreateRuntime:  {configs.NewCommandHook(&configs.Command{}), configs.NewCommandHook(&configs.Command{Env: []string{"A=1"}, Timeout: &second})},
		configs.StartContainer: {configs.NewCommandHook(&configs.Command{})},
		configs.Poststart:      {configs.NewCommandHook(&configs.Command{})},
		configs.Poststop:       {configs.NewCommandHook(&configs.Command{})},
	}}
	made(t, c, shell("true"), nil)
	first, own := c.Hooks[configs.CreateRuntime][0].(configs.CommandHook), c.Hooks[configs.CreateRuntime][1].(configs.CommandHook)
	if *first.Timeout != Limit || !slices.Equal(first.Env, []string{"PATH=/some/bin"}) {
		t.Errorf("got %v, %q", first.Timeout, first.Env)
	}
	if *own.Timeout != second || !slices.Equal(own.Env, []string{"A=1"}) {
		t.Errorf("its own: got %v, %q", own.Timeout, own.Env)
	}
	if inside := c.Hooks[configs.StartContainer][0].(configs.CommandHook); *inside.Timeout != Limit || inside.Env != nil {
		t.Errorf("in the container: got %v, %q", inside.Timeout, inside.Env)
	}
	if len(c.Hooks) != 3 {
		t.Errorf("hooks %v", c.Hooks)
	}
}

func TestRunEndsWithTheFirstThatFailsButForTheLast(t *testing.T) {
	dir := t.TempDir()
	list := slices.Concat(shell("touch "+dir+"/1"), shell("echo why >&2; exit 3"), shell("touch "+dir+"/2"))
	b := made(t, &configs.Config{}, list, list)
	if err := b.Run(t.Context(), Poststart, 1); err == nil || !strings.Contains(err.Error(), "why") || !strings.Contains(err.Error(), "/bin/sh") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir + "/2"); err == nil {
		t.Error("one more was run")
	}
	if err := b.Run(t.Context(), Poststop, 0); err == nil {
		t.Error("the failure is not told")
	}
	if _, err := os.Stat(dir + "/2"); err != nil {
		t.Error("one was left out")
	}
}

func TestAHookThatDoesNotEndIsKilled(t *testing.T) {
	second := 1
	file := t.TempDir() + "/pid"
	hook := shell("sleep 1000 & echo $! > " + file + "; sleep 1000")
	hook[0].Timeout = &second
	began := time.Now()
	err := made(t, &configs.Config{}, hook, nil).Run(t.Context(), Poststart, 1)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
	testutil.Ends(t, file, 5*time.Second)
}
