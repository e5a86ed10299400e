package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/images/debian"
	testnode "github.com/berth-run/berth/test/node"
)

// cache outlives runs: the tarball in it takes a minute to make.
const cache = "../../.cache/debian"

// prepare makes what needs the machine's network. A machine without one runs
// all tests but one.
func prepare() {
	if err := debian.Sklearn().Make(context.Background(), cache); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: no image of scikit-learn:", err)
	}
}

//go:embed testdata/model.py
var modelServer []byte

// sklearnImage is Debian with scikit-learn, and a model server on top.
func sklearnImage(t *testing.T) string {
	t.Helper()
	root, err := os.ReadFile(debian.Sklearn().Path(cache))
	if err != nil {
		t.Fatal("the tarball of scikit-learn could not be made, see above: ", err)
	}
	var i images.Image
	i.Layers = []images.Layer{
		{Tar: root, Compression: images.Plain},
		{Files: []images.File{{Name: "srv/", Mode: 0o755}, {Name: "srv/model.py", Data: modelServer}}},
	}
	i.Config.Entrypoint, i.Config.Cmd = []string{"/usr/bin/python3", "-u"}, []string{"model.py"}
	i.Config.WorkingDir = "/srv"
	i.Config.Env = []string{"PATH=/usr/bin:/bin", "PORT=1"}
	const name = "e2e.local/sklearn:1"
	if err := load(name, i); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := berth.Images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: name}}); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestAModelServerOfDebiansScikitLearnAnswers(t *testing.T) {
	const hostPort = 18200
	volume := t.TempDir()
	image := sklearnImage(t)
	ports := func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 8080, HostPort: hostPort}}
	}
	runPod(t, own, ports).remove() // the built-in network's bridge and chains stay until the daemon stops
	before, err := testnode.Take(berth.Dir)
	if err != nil {
		t.Fatal(err)
	}
	p := runPod(t, own, ports)
	config := sh("")
	config.Image.Image, config.Command = image, nil
	config.Envs = []*cri.KeyValue{{Key: "PORT", Value: []byte("8080")}}
	config.Mounts = []*cri.Mount{{HostPath: volume, ContainerPath: "/data"}}
	config.Linux.Resources.MemoryLimitInBytes = 512 << 20
	c := p.start(config)
	askModel(t, c, fmt.Sprintf("http://127.0.0.1:%d", hostPort))
	c.wantLimits(map[string]string{"memory.limit_in_bytes": "536870912"})
	if err := wantText(c.written(), "trained on 150 flowers of iris"); err != nil {
		t.Error("log: ", err)
	}
	if kept, err := os.ReadFile(filepath.Join(volume, "asked")); err != nil || strings.Count(string(kept), "\n") != len(flowers) {
		t.Errorf("the volume keeps %q, %v", kept, err)
	}
	c.stop(10)
	if s := c.status(); s.ExitCode != 0 || s.Reason != "Completed" {
		t.Errorf("after the stop: %v", s)
	}
	if err := wantText(c.written(), "asked 3 times"); err != nil {
		t.Error("log: ", err)
	}
	p.remove()
	left := slices.DeleteFunc(testnode.Leaks(berth.Dir, before), func(what string) bool {
		return strings.HasPrefix(what, "mount "+filepath.Join(berth.Dir, "run/images")) // as long as the image is there
	})
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// flowers are measures of one of each kind.
var flowers = map[string]string{"5.1,3.5,1.4,0.2": "setosa", "5.9,2.8,4.3,1.3": "versicolor", "6.5,3.0,5.8,2.2": "virginica"}

// askModel waits for the server to have trained, and asks it for each flower.
func askModel(t *testing.T, c *ctr, server string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := testnode.Until(ctx, func() error {
		_, err := ask(strings.TrimPrefix(server, "http://") + "/healthz")
		return err
	})
	if err != nil {
		t.Fatalf("%v; it wrote %s", err, c.written())
	}
	for measures, want := range flowers {
		r, err := http.Get(server + "/predict?x=" + measures)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var got struct{ Species string }
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Species != want {
			t.Errorf("%s: got %v, %v, want %s", measures, got, err, want)
		}
	}
}
