package edit_test

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/spec/edit"
)

func TestVariablesKeepTheirPlace(t *testing.T) {
	p := &specs.Process{Env: []string{"A=1", "AB=2"}}
	for _, kv := range []string{"A=3", "B=4"} {
		edit.SetEnv(p, kv)
	}
	if want := []string{"A=3", "AB=2", "B=4"}; !slices.Equal(p.Env, want) {
		t.Errorf("got %q, want %q", p.Env, want)
	}
}

func TestADeviceIsThereOnceWithItsRule(t *testing.T) {
	l := &specs.Linux{Devices: []specs.LinuxDevice{{Path: "/dev/a", Major: 1}, {Path: "/dev/b"}}}
	n := specs.LinuxDevice{Path: "/dev/a", Type: "c", Major: 5, Minor: 6}
	edit.SetDevice(l, n)
	edit.Allow(l, n, "rw")
	edit.DropDevice(l, "/dev/b")
	if len(l.Devices) != 1 || l.Devices[0].Major != 5 {
		t.Errorf("nodes %+v", l.Devices)
	}
	if r := l.Resources.Devices; len(r) != 1 || !r[0].Allow || *r[0].Major != 5 || *r[0].Minor != 6 || r[0].Access != "rw" {
		t.Errorf("rules %+v", r)
	}
}

func TestOuterMountsComeFirst(t *testing.T) {
	s := &specs.Spec{Mounts: []specs.Mount{{Destination: "/a/b/c"}, {Destination: "/x/"}, {Destination: "/a"}, {Destination: "/a/b"}}}
	edit.DropMount(s, "/x")
	edit.SortMounts(s.Mounts)
	var got []string
	for _, m := range s.Mounts {
		got = append(got, m.Destination)
	}
	if want := []string{"/a", "/a/b", "/a/b/c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
