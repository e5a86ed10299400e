package main

import (
	"strings"
	"testing"
)

func TestRunPullsTheImagesThatItMounts(t *testing.T) {
	d := startDaemon(t)
	d.addImage("docker.io/library/busybox:latest", "sha256:"+strings.Repeat("a", 64))
	d.ok(t, "run", "-q", "-d", "--mount", "type=image,source=model,target=/m,subpath=weights", "busybox", "sleep", "1d")
	for _, c := range d.containers {
		m := c.config.Mounts
		if len(m) != 1 || m[0].Image.GetImage() != "sha256:"+strings.Repeat("9", 64) || m[0].Image.UserSpecifiedImage != "model" || m[0].ImageSubPath != "weights" || !m[0].Readonly {
			t.Errorf("mounts %v", m)
		}
	}
	if got := d.fails(t, "run", "--mount", "type=image,source=model", "busybox"); !strings.Contains(got, "target must be an absolute path") {
		t.Errorf("complaint %q", got)
	}
	if got := d.fails(t, "run", "--pull", "never", "--mount", "type=image,source=gone,target=/m", "busybox", "x"); !strings.Contains(got, `no image "gone"`) {
		t.Errorf("complaint %q", got)
	}
}
