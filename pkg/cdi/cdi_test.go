package cdi_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/errs"
)

// describe writes a specification of vendor.com/KIND with devices that each set one
// variable.
func describe(t *testing.T, dir, name, class, value string, devices ...string) {
	t.Helper()
	text := fmt.Sprintf("cdiVersion: 0.6.0\nkind: vendor.com/%s\ndevices:\n", class)
	for _, d := range devices {
		text += fmt.Sprintf("- {name: %q, containerEdits: {env: [%q]}}\n", d, strings.ToUpper(d)+"="+value)
	}
	write(t, dir, name, text)
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// container asks for devices by the field.
func container(names ...string) *cri.ContainerConfig {
	c := &cri.ContainerConfig{}
	for _, name := range names {
		c.CDIDevices = append(c.CDIDevices, &cri.CDIDevice{Name: name})
	}
	return c
}

func bare() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
}

// environment returns the variables that the devices give.
func environment(t *testing.T, r *cdi.Registry, c *cri.ContainerConfig) []string {
	t.Helper()
	edits, err := r.For(c)
	if err != nil {
		t.Fatal(err)
	}
	s := bare()
	edits.Apply(s, nil)
	return s.Process.Env
}

// refused returns the text of the error.
func refused(t *testing.T, r *cdi.Registry, kind errs.Kind, c *cri.ContainerConfig) string {
	t.Helper()
	edits, err := r.For(c)
	if !errors.Is(err, kind) || edits != nil {
		t.Fatalf("got %v, want kind %q", err, kind)
	}
	return err.Error()
}

func TestDevicesOfFieldAndAnnotationsAreGivenOnce(t *testing.T) {
	dir := t.TempDir()
	describe(t, dir, "a.yaml", "gpu", "1", "a", "b", "c", "d")
	c := container("vendor.com/gpu=c", "vendor.com/gpu=a", "vendor.com/gpu=c")
	c.Annotations = map[string]string{
		"cdi.k8s.io/2": "vendor.com/gpu=a,vendor.com/gpu=b", "cdi.k8s.io/1": "vendor.com/gpu=d", "other.io/cdi": "vendor.com/gpu=none",
	}
	if d := cmp.Diff([]string{"C=1", "A=1", "D=1", "B=1"}, environment(t, cdi.New([]string{dir}), c)); d != "" {
		t.Error(d)
	}
}

func TestUnknownDevicesAreNamedWithWhereTheyWereLookedFor(t *testing.T) {
	dir, absent := t.TempDir(), filepath.Join(t.TempDir(), "absent")
	describe(t, dir, "a.json.yaml", "gpu", "1", "a")
	r := cdi.New([]string{dir, absent})
	for _, name := range []string{"vendor.com/gpu=b", "vendor.com/nic=a", "other.com/gpu=a"} {
		got := refused(t, r, errs.Invalid, container("vendor.com/gpu=a", name))
		for _, part := range []string{name, dir, absent} {
			if !strings.Contains(got, part) {
				t.Errorf("%q says nothing of %s", got, part)
			}
		}
	}
	var none *cdi.Registry
	if got := refused(t, none, errs.Invalid, container("vendor.com/gpu=a")); !strings.Contains(got, "no directories") {
		t.Error(got)
	}
}

func TestMalformedNamesAreRefused(t *testing.T) {
	r := cdi.New([]string{t.TempDir()})
	for _, name := range []string{
		"", "gpu", "/dev/null", "vendor.com/gpu", "vendor.com/gpu=", "=a", "vendor.com=a", "../../etc/gpu=a", "vendor.com/gpu=../a",
		"vendor.com/gpu=a b", "vendor.com/gpu=a\n", "vendor.com/gpu=\x00", " vendor.com/gpu=a", strings.Repeat("x", 1<<20),
	} {
		if got := refused(t, r, errs.Invalid, container(name)); len(got) > 1000 {
			t.Errorf("%d bytes of error for %.20q", len(got), name)
		}
		refused(t, r, errs.Invalid, &cri.ContainerConfig{Annotations: map[string]string{"cdi.k8s.io/x": name}})
	}
	refused(t, r, errs.Invalid, &cri.ContainerConfig{Annotations: map[string]string{"cdi.k8s.io/x": "vendor.com/gpu=a, vendor.com/gpu=b"}})
}

func TestABrokenSpecificationTakesAwayNoOthersDevices(t *testing.T) {
	first, last, notDir := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(notDir), "file", "")
	for name, text := range map[string]string{
		"0-text.yaml": ":\n\t-", "1-empty.yaml": "", "2-null.json": `{"cdiVersion":"0.6.0","kind":"vendor.com/null","devices":[{"name":"a","containerEdits":{"deviceNodes":[null]}}]}`,
		"3-newer.yaml": "cdiVersion: 99.0.0\nkind: vendor.com/newer\ndevices: [{name: a, containerEdits: {env: [A=1]}}]",
		"4-field.yaml": "cdiVersion: 0.6.0\nkind: vendor.com/field\nunknown: 1\ndevices: [{name: a, containerEdits: {env: [A=1]}}]",
		"6-bomb.yaml":  "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]",
	} {
		write(t, first, name, text)
	}
	if err := unix.Mkfifo(filepath.Join(first, "5-pipe.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(first, "7-link.yaml")); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(first, "8-large.yaml")
	write(t, first, "8-large.yaml", "")
	if err := os.Truncate(large, 1<<30); err != nil {
		t.Fatal(err)
	}
	describe(t, last, "a.yaml", "gpu", "1", "a")
	r := cdi.New([]string{notDir, first, last})
	if got := environment(t, r, container("vendor.com/gpu=a")); len(got) != 1 {
		t.Error(got)
	}
	got := refused(t, r, errs.Invalid, container("vendor.com/null=a"))
	for _, part := range []string{"2-null.json", "5-pipe.json", large, notDir} {
		if !strings.Contains(got, part) {
			t.Errorf("%s is not named: %s", part, got)
		}
	}
}

func TestTheLastDirectoryWinsAndTwoFilesOfOneDoNot(t *testing.T) {
	first, last := t.TempDir(), t.TempDir()
	describe(t, first, "a.yaml", "gpu", "first", "a", "b")
	describe(t, first, "b.yaml", "gpu", "twice", "a", "b")
	describe(t, last, "a.yaml", "gpu", "last", "a")
	r := cdi.New([]string{first, last})
	if d := cmp.Diff([]string{"A=last"}, environment(t, r, container("vendor.com/gpu=a"))); d != "" {
		t.Error(d)
	}
	got := refused(t, r, errs.Invalid, container("vendor.com/gpu=b"))
	if !strings.Contains(got, filepath.Join(first, "a.yaml")) || !strings.Contains(got, filepath.Join(first, "b.yaml")) {
		t.Error(got)
	}
}

func TestChangesAreSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "late")
	r := cdi.New([]string{dir})
	a := container("vendor.com/gpu=a")
	refused(t, r, errs.Invalid, a)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // in place, of the same size, within a tick of the kernel's clock
		describe(t, dir, "a.yaml", "gpu", fmt.Sprint(i), "a")
		if d := cmp.Diff([]string{fmt.Sprintf("A=%d", i)}, environment(t, r, a)); d != "" {
			t.Error(d)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a.yaml"), old, old); err != nil {
		t.Fatal(err)
	}
	environment(t, r, a)
	describe(t, dir, "a.yaml", "gpu", "9", "a")
	if d := cmp.Diff([]string{"A=9"}, environment(t, r, a)); d != "" {
		t.Error(d)
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	refused(t, r, errs.Invalid, a)
}

func TestDevicesMayBeAskedForAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "gpu.yaml", "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- {name: a, containerEdits: {env: [A=1], deviceNodes: [{path: /dev/gpu, hostPath: /dev/full}], mounts: [{hostPath: /a, containerPath: /a}]}}\n")
	r := cdi.New([]string{dir})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				edits, err := r.For(container("vendor.com/gpu=a"))
				if err != nil {
					t.Error(err)
					return
				}
				s := bare()
				s.Process.User.UID = 1
				if edits.Apply(s, nil); len(s.Linux.Devices) != 1 {
					t.Errorf("devices %v", s.Linux.Devices)
				}
			}
		})
	}
	all.Wait()
}

func TestAContainerWithoutDevicesCostsNothing(t *testing.T) {
	r := cdi.New([]string{t.TempDir()})
	c := &cri.ContainerConfig{Annotations: map[string]string{"io.kubernetes.container.hash": "1", "io.kubernetes.pod.terminationGracePeriod": "30"}}
	n := testing.AllocsPerRun(100, func() {
		if edits, err := r.For(c); edits != nil || err != nil {
			t.Error(edits, err)
		}
	})
	if n != 0 {
		t.Errorf("%f allocations", n)
	}
}

func BenchmarkFor(b *testing.B) {
	dir := b.TempDir()
	text := "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ncontainerEdits:\n  mounts:\n"
	for i := range 100 {
		text += fmt.Sprintf("  - {hostPath: /usr/lib/%d.so, containerPath: /usr/lib/%d.so, options: [ro, nosuid, nodev, rbind, rprivate]}\n", i, i)
	}
	text += "devices:\n- {name: a, containerEdits: {deviceNodes: [{path: /dev/null}]}}\n"
	path := filepath.Join(dir, "gpu.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]*cri.ContainerConfig{"none": {Annotations: map[string]string{"a": "b", "c": "d"}}, "one": container("vendor.com/gpu=a")} {
		b.Run(name, func(b *testing.B) {
			r := cdi.New([]string{"/nowhere", dir})
			for b.Loop() {
				if _, err := r.For(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
