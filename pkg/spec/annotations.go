package spec

import (
	"maps"
	"strings"
)

// annotations passes those pod and container annotations on that the handler
// allows, the container's winning. Unit properties never (CRI-O's
// CVE-2024-3154), and image labels are not even looked at.
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

func (b *builder) passes(key string) bool {
	if strings.HasPrefix(key, "org.systemd.property.") {
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
