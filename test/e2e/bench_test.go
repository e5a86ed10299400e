package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// benchRow is a row of berth-bench's report, as far as it is used here.
type benchRow struct {
	Name, Note, Missing  string
	N                    int
	P50, P95, Max, Value float64
}

// bench runs a suite of berth-bench against the shared node.
func bench(t *testing.T, suite string, args ...string) []benchRow {
	t.Helper()
	args = append([]string{
		suite, "--json", "--endpoint", "unix://" + berth.Socket(), "--image", busybox, "--warmup", "1", "--log-dir", t.TempDir(),
	}, args...)
	c := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("BERTH_BIN"), "berth-bench"), args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Suite, Runtime string
		Rows           []benchRow
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.Suite != suite || r.Runtime == "" {
		t.Errorf("report %s", out)
	}
	return r.Rows
}

func TestEverySuiteOfBerthBenchMeasures(t *testing.T) {
	s := registry.Start(nil)
	defer s.Close()
	built, err := images.Image{Layers: []images.Layer{{Files: []images.File{{Name: "file", Data: []byte("text")}}}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	ref := s.Put("bench", "1", built)
	for suite, c := range map[string]struct {
		args []string
		want []string // of the rows
	}{
		"lifecycle": {[]string{"--n", "2", "--network", "pod"}, []string{
			"RunPodSandbox", "CreateContainer", "StartContainer", "pod-up", "StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox", "pod-down",
		}},
		"parallel": {[]string{"--n", "4", "--at", "2"}, []string{"pod-up, 2 at once", "pods up, 2 at once", "pods down, 2 at once"}},
		"exec":     {[]string{"--n", "4", "--at", "2"}, []string{"ExecSync", "ExecSync, each of 2 at once", "ExecSync, 2 at once"}},
		"logs":     {[]string{"--n", "2", "--bytes", "2000000"}, []string{"log of 2 MB", "log throughput, mean"}},
		"lists": {[]string{"--n", "2", "--pods", "2", "--network", "host"}, []string{
			"ListPodSandbox", "ListContainers", "ListContainerStats", "ListPodSandboxStats", "PodSandboxStatus", "ContainerStatus", "Status",
		}},
		"density": {[]string{"--n", "2", "--poll", "1s"}, []string{"PSS without pods", "PSS with 2 pods", "PSS a pod at 2 pods", "CPU while polled each second"}},
		"pull":    {[]string{"--n", "2", "--ref", ref}, []string{"PullImage"}},
	} {
		t.Run(suite, func(t *testing.T) {
			var names []string
			for _, r := range bench(t, suite, c.args...) {
				names = append(names, r.Name)
				if distribution := 0 < r.P50 && r.P50 <= r.P95 && r.P95 <= r.Max; r.N > 0 && !distribution {
					t.Errorf("no distribution: %+v", r)
				}
				if r.N == 0 && r.Value == 0 && r.Note == "" && suite != "density" { // two pods may cost nothing
					t.Errorf("no figure: %+v", r)
				}
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("rows %q, want %q", names, c.want)
			}
		})
	}
	pods, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if _, ours := p.Labels["berth.run/bench"]; ours {
			t.Errorf("left is %v", p.Metadata)
		}
	}
}
