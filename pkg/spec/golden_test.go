package spec_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenInput is a testdata/*.in.json: the messages in protobuf's JSON form.
type goldenInput struct {
	Pod        json.RawMessage
	Container  json.RawMessage
	Image      ispec.ImageConfig
	User       spec.User
	Namespaces map[specs.LinuxNamespaceType]string
	Target     string
	CgroupV2   bool
	Driver     string
	Volumes    []spec.Volume
}

// TestGolden turns each testdata/*.in.json into a specification and compares it
// to the *.out.json beside it; -update writes that.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, path := range inputs {
		name := strings.TrimSuffix(filepath.Base(path), ".in.json")
		t.Run(name, func(t *testing.T) {
			got, err := spec.Container(readGolden(t, path))
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(got, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			out := strings.TrimSuffix(path, ".in.json") + ".out.json"
			if *update {
				if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(text)+"\n"); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func readGolden(t *testing.T, path string) spec.Input {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var g goldenInput
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	in := input()
	in.Pod, in.Container = &cri.PodSandboxConfig{}, &cri.ContainerConfig{}
	if err := protojson.Unmarshal(g.Pod, in.Pod); err != nil {
		t.Fatal("pod: ", err)
	}
	if err := protojson.Unmarshal(g.Container, in.Container); err != nil {
		t.Fatal("container: ", err)
	}
	in.Image, in.User, in.Namespaces, in.TargetPIDNS, in.Volumes = g.Image, g.User, g.Namespaces, g.Target, g.Volumes
	if in.UTSName = in.Pod.GetHostname(); in.UTSName == "" {
		in.UTSName = "node"
	}
	in.Host.CgroupV2 = g.CgroupV2
	in.Options.CgroupDriver = g.Driver
	return in
}
