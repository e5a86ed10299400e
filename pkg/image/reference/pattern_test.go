package reference

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestPatternsMatchNames(t *testing.T) {
	id := digest.FromString("config").String()
	names := []string{id, "docker.io/library/busybox:latest", "registry.k8s.io/pause:3.10", "registry.k8s.io/pause@sha256:cd"}
	for pattern, want := range map[string]bool{
		"busybox": true, "busybox:1": false, "registry.k8s.io/pause:3.10": true, "registry.k8s.io/pause:3.1": false,
		"registry.k8s.io/*": true, "*/pause:*": true, "*pause*": true, "*": true, "*:3.10": true, "*:3.1": false, "registry.k8s.io/pause:*.*0": true,
		"k8s.io/*": false, "*/*/*/*": false, id: true, "registry.k8s.io/pause@*": true, "*3.10*3.10": false,
	} {
		if got := ParsePatterns([]string{"other", pattern}).Match(names...); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
