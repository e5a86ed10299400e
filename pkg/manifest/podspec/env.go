package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Facts are what a fieldRef may name beside the manifest's own fields.
type Facts struct {
	PodIPs   []string
	NodeName string
}

// environment resolves a container's variables in order; a value may use those
// before it. It returns them as CRI has them, and as a map for command and args.
func environment(p *corev1.Pod, c *corev1.Container, f Facts) ([]*runtimeapi.KeyValue, map[string]string, error) {
	values := map[string]string{}
	var list []*runtimeapi.KeyValue
	for _, e := range c.Env {
		value := expand(e.Value, values)
		if e.ValueFrom != nil {
			if e.ValueFrom.FieldRef == nil {
				return nil, nil, fmt.Errorf("env %s: its valueFrom names no fieldRef: %w", e.Name, errs.Invalid)
			}
			var err error
			if value, err = fieldValue(p, e.ValueFrom.FieldRef.FieldPath, f); err != nil {
				return nil, nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
		}
		values[e.Name] = value
		list = append(list, &runtimeapi.KeyValue{Key: e.Name, Value: []byte(value)})
	}
	return list, values, nil
}

// checkFieldRefs tells of the first that environment could not resolve.
func checkFieldRefs(p *corev1.Pod) error {
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			if _, _, err := environment(p, &containers[i], Facts{}); err != nil {
				return fmt.Errorf("container %q: %w", containers[i].Name, err)
			}
		}
	}
	return nil
}

// fieldValue returns the pod's field of that path.
func fieldValue(p *corev1.Pod, path string, f Facts) (string, error) {
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "spec.nodeName":
		return f.NodeName, nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	case "status.podIP":
		if len(f.PodIPs) == 0 {
			return "", nil
		}
		return f.PodIPs[0], nil
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels['": p.Labels, "metadata.annotations['": p.Annotations} {
		if name, ok := strings.CutPrefix(path, prefix); ok && strings.HasSuffix(name, "']") {
			return values[strings.TrimSuffix(name, "']")], nil
		}
	}
	return "", fmt.Errorf("fieldRef %q is not supported by berth apply: %w", path, errs.Unsupported)
}

// expand replaces $(NAME) by the variable's value, and $$ by $. A name that
// nobody set stays as it is, as in Kubernetes.
func expand(s string, values map[string]string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		value, known := values[name]
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			s = rest[1:]
		case strings.HasPrefix(rest, "(") && closed && known:
			out.WriteString(value)
			s = after
		case strings.HasPrefix(rest, "(") && closed:
			out.WriteString("$(" + name + ")")
			s = after
		default:
			out.WriteByte('$')
			s = rest
		}
	}
}

func expandAll(all []string, values map[string]string) []string {
	var out []string
	for _, s := range all {
		out = append(out, expand(s, values))
	}
	return out
}
