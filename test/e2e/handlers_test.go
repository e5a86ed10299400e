package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAHandlerChangesWhatItIsConfiguredTo(t *testing.T) {
	config := podConfig(t)
	config.Linux.SecurityContext.Privileged = true
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: "careful"})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t, r.PodSandboxId, config}
	t.Cleanup(p.remove)
	if h := p.status().RuntimeHandler; h != "careful" {
		t.Errorf("status has handler %q", h)
	}
	list, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: p.id}})
	if err != nil || len(list.Items) != 1 || list.Items[0].RuntimeHandler != "careful" {
		t.Errorf("list %v, %v", list, err)
	}
	if _, err := os.Stat("/dev/vda"); err != nil {
		t.Skip("no /dev/vda, by which host devices are told")
	}
	privileged := sh("ls /dev")
	security(privileged).Privileged = true
	if out := p.start(privileged).output(); strings.Contains(out, "vda") {
		t.Errorf("the careful handler gives %q", out)
	}
	plain := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	privileged = sh("ls /dev")
	security(privileged).Privileged = true
	if out := plain.start(privileged).output(); !strings.Contains(out, "vda") {
		t.Errorf("the default handler gives %q", out)
	}
}

// TestHandlersHaveSettingsOfTheirOwn looks at the built-in one and one of a program.
func TestHandlersHaveSettingsOfTheirOwn(t *testing.T) {
	for handler, settings := range map[string]bool{"": false, "careful": true, "movable": true} {
		config := podConfig(t)
		r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
		if err != nil {
			t.Fatal(err)
		}
		p := &pod{t, r.PodSandboxId, config}
		t.Cleanup(p.remove)
		script := "grep Seccomp: /proc/self/status | cut -f2; head -1 /proc/self/mountinfo | grep -o -m 1 -E 'state/images|run/images|data/layers' | head -1"
		c := sh(script + "; sleep 1000")
		c.Annotations = map[string]string{"e2e.test/a": "reaches", "other.test/b": "does not"}
		k := p.start(c)
		want := []string{"0", "run/images"}
		if settings {
			want = []string{"2", "data/layers"}
		}
		eventually(t, func() error {
			if got := strings.Fields(k.written()); !slices.Equal(got, want) {
				return fmt.Errorf("seccomp and layers of %q: %q, want %q", handler, got, want)
			}
			return nil
		})
		status, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: k.id, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct {
			RuntimeSpec struct{ Annotations map[string]string } `json:"runtimeSpec"`
		}
		if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil {
			t.Fatal(err)
		}
		got := info.RuntimeSpec.Annotations
		if _, other := got["other.test/b"]; (got["e2e.test/a"] == "reaches") != settings || other {
			t.Errorf("annotations of %q: %v", handler, got)
		}
		unconfined := sh("grep Seccomp: /proc/self/status | cut -f2")
		profileOf(cri.SecurityProfile_Unconfined, "")(security(unconfined))
		if out := p.start(unconfined).output(); out != "0" {
			t.Errorf("unconfined, of %q: seccomp %s", handler, out)
		}
	}
}

func TestOnlyHandlersThatExistAreTaken(t *testing.T) {
	config := podConfig(t)
	for _, name := range []string{"kata", "berth ", "../berth"} {
		_, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: name})
		if code(err) != codes.NotFound || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "careful") {
			t.Errorf("%q: %v", name, err)
		}
	}
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: "berth"})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t, r.PodSandboxId, config}
	t.Cleanup(p.remove)
	_, err = berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if code(err) != codes.AlreadyExists {
		t.Errorf("the same pod with another handler: %v", err)
	}
}

func TestHandlersAreListedWithTheDefaultFirst(t *testing.T) {
	r, err := berth.Runtime.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range r.RuntimeHandlers {
		names = append(names, h.Name)
	}
	want := []string{"", "berth", "careful"}
	for _, name := range []string{"crun", "movable", "runc"} {
		if strings.Contains(commandHandlers(t.TempDir()), "."+name+"]") {
			want = append(want, name)
		}
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}
