package podspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berth-run/berth/pkg/errs"
)

// verdict says what becomes of a field: "" is honoured, with all below it that
// has no verdict of its own; any other text is a warning, and the field is
// ignored. A field without a verdict is refused.
type verdict = string

const (
	honoured     verdict = ""
	clusterOnly  verdict = "has no meaning without a cluster and is ignored"
	noProbes     verdict = "probes are not run yet"
	notEnforced  verdict = "is not enforced"
	containsRest         = "\x00" // some fields below are honoured, others are not
)

// fields holds the verdict of every field that is not refused. "[]" stands for
// the elements of a list.
var fields = merge(podFields, containerFields("spec.containers[]"), containerFields("spec.initContainers[]"))

var podFields = map[string]verdict{
	"apiVersion": honoured, "kind": honoured, "metadata": containsRest, "spec": containsRest,
	"status":        "is ignored",
	"metadata.name": honoured, "metadata.namespace": honoured, "metadata.labels": honoured,
	"metadata.annotations": honoured, "metadata.uid": honoured,
	"metadata.creationTimestamp": clusterOnly, "metadata.resourceVersion": clusterOnly,
	"metadata.generateName": clusterOnly, "metadata.ownerReferences": clusterOnly,
	"metadata.managedFields": clusterOnly, "metadata.generation": clusterOnly, "metadata.finalizers": clusterOnly,

	"spec.containers": containsRest, "spec.initContainers": containsRest,
	"spec.restartPolicy": honoured, "spec.terminationGracePeriodSeconds": honoured,
	"spec.hostname": honoured, "spec.hostNetwork": honoured, "spec.hostPID": honoured, "spec.hostIPC": honoured,
	"spec.shareProcessNamespace": honoured, "spec.dnsPolicy": honoured, "spec.dnsConfig": honoured,
	"spec.nodeName": clusterOnly, "spec.nodeSelector": clusterOnly, "spec.affinity": clusterOnly,
	"spec.tolerations": clusterOnly, "spec.schedulerName": clusterOnly, "spec.priority": clusterOnly,
	"spec.priorityClassName": clusterOnly, "spec.preemptionPolicy": clusterOnly,
	"spec.topologySpreadConstraints": clusterOnly, "spec.serviceAccount": clusterOnly,
	"spec.serviceAccountName": clusterOnly, "spec.automountServiceAccountToken": clusterOnly,
	"spec.enableServiceLinks": clusterOnly, "spec.readinessGates": clusterOnly, "spec.subdomain": clusterOnly,

	"spec.securityContext":           containsRest,
	"spec.securityContext.runAsUser": honoured, "spec.securityContext.runAsGroup": honoured,
	"spec.securityContext.runAsNonRoot": honoured, "spec.securityContext.supplementalGroups": honoured,
	"spec.securityContext.supplementalGroupsPolicy": honoured, "spec.securityContext.fsGroup": honoured,
	"spec.securityContext.fsGroupChangePolicy": notEnforced, "spec.securityContext.sysctls": honoured,
	"spec.securityContext.seccompProfile": honoured, "spec.securityContext.appArmorProfile": honoured,
	"spec.securityContext.seLinuxOptions": honoured,

	"spec.volumes": containsRest, "spec.volumes[]": containsRest, "spec.volumes[].name": honoured,
	"spec.volumes[].hostPath": honoured, "spec.volumes[].emptyDir": containsRest,
	"spec.volumes[].emptyDir.medium": honoured, "spec.volumes[].emptyDir.sizeLimit": honoured,
}

func containerFields(at string) map[string]verdict {
	all := map[string]verdict{at: containsRest}
	for field, v := range map[string]verdict{
		"name": honoured, "image": honoured, "command": honoured, "args": honoured, "workingDir": honoured,
		"imagePullPolicy": honoured, "restartPolicy": honoured, "tty": honoured, "stdin": honoured, "stdinOnce": honoured,
		"ports": honoured, "resources": containsRest, "resources.limits": honoured, "resources.requests": honoured,
		"env": containsRest, "env[]": containsRest, "env[].name": honoured, "env[].value": honoured,
		"env[].valueFrom": containsRest, "env[].valueFrom.fieldRef": honoured,
		"volumeMounts": containsRest, "volumeMounts[]": containsRest, "volumeMounts[].name": honoured,
		"volumeMounts[].mountPath": honoured, "volumeMounts[].readOnly": honoured,
		"volumeMounts[].mountPropagation": honoured, "volumeMounts[].recursiveReadOnly": honoured,
		"securityContext": containsRest, "securityContext.capabilities": honoured, "securityContext.privileged": honoured,
		"securityContext.readOnlyRootFilesystem": honoured, "securityContext.allowPrivilegeEscalation": honoured,
		"securityContext.runAsUser": honoured, "securityContext.runAsGroup": honoured, "securityContext.runAsNonRoot": honoured,
		"securityContext.procMount": honoured, "securityContext.seccompProfile": honoured,
		"securityContext.appArmorProfile": honoured, "securityContext.seLinuxOptions": honoured,
		"livenessProbe": noProbes, "readinessProbe": noProbes, "startupProbe": noProbes,
		"terminationMessagePath": "termination messages are not read", "terminationMessagePolicy": "termination messages are not read",
	} {
		all[at+"."+field] = v
	}
	return all
}

func merge(all ...map[string]verdict) map[string]verdict {
	merged := map[string]verdict{}
	for _, m := range all {
		maps.Copy(merged, m)
	}
	return merged
}

// refusals says of fields that people are likely to try what to do instead.
var refusals = map[string]string{
	"configMap":        "mount a file with hostPath",
	"secret":           "mount a file with hostPath",
	"configMapKeyRef":  "give the value itself",
	"secretKeyRef":     "give the value itself",
	"envFrom":          "give the values in env",
	"imagePullSecrets": "pull the image first, with berth pull --user",
	"subPath":          "mount a volume of its own",
}

// judge walks a document and returns its warnings, or the error of the first
// field that cannot be honoured.
func judge(data []byte) ([]string, error) {
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	j := judgement{}
	if err := j.walk(doc, "", ""); err != nil {
		return nil, err
	}
	return j.warnings, nil
}

type judgement struct{ warnings []string }

// walk looks at the value at path; pattern is path with "[]" for indices.
func (j *judgement) walk(v any, path, pattern string) error {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if v[name] == nil {
				continue
			}
			if err := j.field(v[name], name, join(path, name), join(pattern, name)); err != nil {
				return err
			}
		}
	case []any:
		for i, e := range v {
			if err := j.walk(e, fmt.Sprintf("%s[%d]", path, i), pattern+"[]"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *judgement) field(v any, name, path, pattern string) error {
	verdict, ok := fields[pattern]
	switch {
	case !ok:
		what := "is not supported by berth apply"
		if instead, ok := refusals[name]; ok {
			what += ": " + instead
		}
		return fmt.Errorf("%s %s: %w", path, what, errs.Unsupported)
	case verdict == containsRest:
		return j.walk(v, path, pattern)
	case verdict != honoured:
		j.warnings = append(j.warnings, path+": "+verdict)
	}
	return nil
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }
