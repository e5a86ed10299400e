package nri_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/berth-run/berth/pkg/nri"
)

// TestMain makes this binary a plugin where it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv(api.PluginNameEnvVar) == "" {
		os.Exit(m.Run())
	}
	s, err := stub.New(&launched{})
	if err == nil {
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// launched adds to each container its configuration, as a variable.
type launched struct{ config string }

func (l *launched) Configure(_ context.Context, config, _, _ string) (api.EventMask, error) {
	l.config = config
	return api.EventMask(0), nil
}

func (l *launched) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	a := &api.ContainerAdjustment{}
	a.AddEnv("FROM_PLUGIN", l.config)
	return a, nil, nil
}

func TestPluginsOfTheDirectoryAreStarted(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plugins, configs := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(plugins, "20-launched")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(plugins, "30-broken"), []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(configs, "launched.conf"), []byte("conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, nri.Options{Plugins: plugins, Configs: configs})
	r, _ := n.runtime.Request(n.create("c"))
	if !slices.Contains(r.Spec.Process.Env, "FROM_PLUGIN=conf") {
		t.Errorf("environment %q", r.Spec.Process.Env)
	}
}

// judge is a plugin that validates what others do.
type judge struct {
	plugin
	verdict error
}

func (j *judge) ValidateContainerAdjustment(context.Context, *api.ValidateContainerAdjustmentRequest) error {
	return j.verdict
}

func hooks(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	a := &api.ContainerAdjustment{}
	a.AddHooks(&api.Hooks{Poststop: []*api.Hook{{Path: "/bin/true"}}})
	return a, nil, nil
}

func TestTheBuiltInValidatorRefusesWhatTheNodeForbids(t *testing.T) {
	n := newNode(t, nri.Options{Validator: nri.Validator{Enable: true, RejectOCIHookAdjustment: true}})
	n.create("before")
	p := n.connect(&plugin{onCreate: hooks})
	if _, err := n.tryCreate("c"); err == nil || !strings.Contains(err.Error(), "hook") {
		t.Errorf("got %v", err)
	}
	if got := p.told(); !strings.HasSuffix(got, "create c, stop c CONTAINER_CREATED, remove c") {
		t.Errorf("told %s", got)
	}
}

func TestRequiredPluginsMustBeThere(t *testing.T) {
	n := newNode(t, nri.Options{Validator: nri.Validator{Enable: true, RequiredPlugins: []string{"needed"}}})
	if _, err := n.tryCreate("c"); err == nil || !strings.Contains(err.Error(), "needed") {
		t.Errorf("got %v", err)
	}
	n.connect(&plugin{name: "needed"})
	n.create("c")
}

func TestAPluginMayValidateWhatOthersDo(t *testing.T) {
	n := newNode(t, nri.Options{})
	n.connect(&plugin{name: "hooks", onCreate: hooks})
	j := &judge{plugin: plugin{name: "judge"}}
	n.dialAs(&j.plugin, j)
	n.await(j.synced, "the judge has not been told what there is")
	n.settle()
	n.create("c")
	j.verdict = errors.New("no hooks here")
	if _, err := n.tryCreate("d"); err == nil || !strings.Contains(err.Error(), "no hooks here") {
		t.Errorf("got %v", err)
	}
}
