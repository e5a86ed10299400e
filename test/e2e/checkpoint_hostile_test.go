package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestACheckpointSaysNothingOfWhatIsMade has one that says all that it can.
func TestACheckpointSaysNothingOfWhatIsMade(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own)
	config := counting()
	config.Annotations, config.Labels = map[string]string{"mine": "1"}, map[string]string{"app": "a"}
	c := p.start(config)
	countsFrom(c, 3)
	dir := p.checkpoint(t, c)
	p.stop()
	const evil = `{"name":"evil","rootfsImageName":"evil.local/evil:1","rootfsImage":"sha256:0","annotations":{"evil":"1"},"labels":{"evil":"1"},` +
		`"mounts":[{"destination":"/evil","type":"bind","source":"/etc","options":["rbind"]}],"hooks":{"prestart":[{"path":"/bin/touch","args":["touch","/tmp/evil-hook"]}]},` +
		`"linux":{"devices":[{"path":"/dev/evil","type":"c","major":1,"minor":1}]},"process":{"args":["/evil"],"capabilities":{"effective":["CAP_SYS_ADMIN"]}}}`
	for _, name := range []string{"config.dump", "spec.dump", "status.dump", "network.status", "bind.mounts"} {
		if err := os.WriteFile(filepath.Join(dir, "0", name), []byte(evil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "0/checkpoint/criu.conf"), []byte("action-script /bin/false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, again := p.restore(t, dir, config)
	again[0].start()
	countsFrom(again[0], 3)
	s := again[0].status()
	if len(s.Annotations) != 1 || len(s.Labels) != 1 || len(s.Mounts) != 0 || s.Metadata.Name != config.Metadata.Name {
		t.Errorf("status %v", s)
	}
	if out := again[0].sh("ls -d /evil /dev/evil 2>/dev/null; grep CapEff /proc/1/status; true"); out != effective(t) {
		t.Errorf("in it: %q", out)
	}
	images, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil || strings.Contains(fmt.Sprint(images), "evil") {
		t.Errorf("images %v, %v", images, err)
	}
	if _, err := os.Stat("/tmp/evil-hook"); err == nil {
		t.Error("a hook of the checkpoint has run")
	}
}

// effective is the line of a default container's capabilities.
func effective(t *testing.T) string {
	t.Helper()
	return (&ctr{t, nil, runPod(t).start(sleeper()).id}).sh("grep CapEff /proc/1/status")
}

func TestADamagedCheckpointLeavesNothing(t *testing.T) {
	needCRIU(t)
	p := runPod(t, own)
	config := counting()
	c := p.start(config)
	countsFrom(c, 3)
	dir := p.checkpoint(t, c)
	p.stop()
	pages, err := filepath.Glob(filepath.Join(dir, "0/checkpoint/core-*.img"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("%q, %v", pages, err)
	}
	for _, path := range pages {
		if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, all := p.restore(t, dir, config)
	_, err = berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: all[0].id})
	if err == nil || !strings.Contains(err.Error(), "CRIU") {
		t.Errorf("started: %v", err)
	}
	if s := all[0].status(); s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode == 0 {
		t.Errorf("after the failure: %v", s)
	}
	again.stop()
	// A directory that is not followed out of, and one that is another's.
	image := filepath.Join(dir, "0/checkpoint/core-1.img")
	if err := errors.Join(os.Remove(image), os.Symlink("/etc/passwd", image)); err != nil {
		t.Fatal(err)
	}
	before := pods(t)
	_, err = berth.Runtime.RestorePod(t.Context(), &cri.RestorePodRequest{CheckpointPath: dir, Config: p.like(t), ContainerConfigs: []*cri.ContainerConfig{config}})
	if code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "symbolic links") {
		t.Errorf("a link: %v", err)
	}
	if after := pods(t); after != before {
		t.Errorf("%d pods, %d before", after, before)
	}
	_, err = berth.Runtime.RestorePod(t.Context(), &cri.RestorePodRequest{CheckpointPath: dir, Config: p.like(t), ContainerConfigs: []*cri.ContainerConfig{config}, Options: map[string]string{"x": "y"}})
	if code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `option "x"`) {
		t.Errorf("an option: %v", err)
	}
}

func pods(t *testing.T) int {
	t.Helper()
	r, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Items)
}
