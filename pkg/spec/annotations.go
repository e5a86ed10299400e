package spec

import (
	"maps"
	"slices"
	"strings"
)

// annotations passes those pod and container annotations on that the handler
// allows, the container's winning. Those in never do, and image labels are not even
// looked at.
func (b *builder) annotations() error {
	out := map[string]string{}
	for _, set := range []map[string]string{b.Pod.GetAnnotations(), b.Container.GetAnnotations()} {
		for key, value := range set {
			if b.passes(key) {
				out[key] = value
			}
		}
	}
	maps.Copy(out, map[string]string{
		"io.kubernetes.cri.container-type": "container",
		"io.kubernetes.cri.sandbox-id":     b.PodID,
	})
	b.spec.Annotations = out
	return nil
}

// never begins the keys by which a pod would reach the node: properties of systemd
// units (CRI-O's CVE-2024-3154); the sockets and libraries of seccomp, and the files
// for what hooks write, that crun takes.
var never = []string{"org.systemd.property.", "run.oci.seccomp.", "run.oci.hooks."}

func (b *builder) passes(key string) bool {
	if slices.ContainsFunc(never, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
		return false
	}
	for _, pattern := range b.Options.Annotations {
		prefix, wild := strings.CutSuffix(pattern, "*")
		if key == pattern || wild && strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
