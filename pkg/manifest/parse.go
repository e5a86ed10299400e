package manifest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/berth-run/berth/pkg/errs"
)

// maxDocuments bounds how many pods one file may hold.
const maxDocuments = 1000

// document is one pod of a file, with defaults set.
type document struct {
	pod      *corev1.Pod
	warnings []string
}

// parse reads all documents of a file. A field that Kubernetes does not know,
// or that Berth cannot honour, is an error that names it.
func parse(data []byte) ([]document, error) {
	var all []document
	seen := map[string]bool{}
	for i, raw := range split(data) {
		d, err := parseDocument(raw)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if seen[key(d.pod)] {
			return nil, fmt.Errorf("document %d: pod %s is in the file twice: %w", i+1, key(d.pod), errs.Invalid)
		}
		seen[key(d.pod)] = true
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the manifest holds no pod: %w", errs.Invalid)
	}
	if len(all) > maxDocuments {
		return nil, fmt.Errorf("the manifest holds more than %d pods: %w", maxDocuments, errs.Invalid)
	}
	return all, nil
}

// split cuts a file at its "---" lines and drops what is empty or comment.
func split(data []byte) [][]byte {
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var all [][]byte
	for {
		raw, err := r.Read()
		if blank(raw) {
			if err != nil {
				return all
			}
			continue
		}
		all = append(all, raw)
		if errors.Is(err, io.EOF) {
			return all
		}
	}
}

func blank(raw []byte) bool {
	for line := range bytes.Lines(raw) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

func parseDocument(raw []byte) (document, error) {
	data, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return document{}, fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	var kind struct{ APIVersion, Kind string }
	if err := json.Unmarshal(data, &kind); err != nil {
		return document{}, fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	if kind.Kind != "Pod" || kind.APIVersion != "v1" {
		return document{}, fmt.Errorf("apiVersion %q, kind %q: only v1 Pods are run: %w", kind.APIVersion, kind.Kind, errs.Unsupported)
	}
	pod := &corev1.Pod{}
	strict, err := kjson.UnmarshalStrict(data, pod)
	if err == nil {
		err = errors.Join(strict...)
	}
	if err != nil {
		return document{}, fmt.Errorf("%s: %w", oneLine(err), errs.Invalid)
	}
	warnings, err := judge(data)
	if err != nil {
		return document{}, fmt.Errorf("pod %q: %w", pod.Name, err)
	}
	setDefaults(pod)
	if err := validate(pod); err != nil {
		return document{}, fmt.Errorf("pod %q: %w", pod.Name, err)
	}
	for i := range warnings {
		warnings[i] = "pod " + pod.Name + ": " + warnings[i]
	}
	return document{pod, warnings}, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// parseNames reads no more of a file than the names of its pods.
func parseNames(data []byte) ([]podName, error) {
	var names []podName
	for i, raw := range split(data) {
		var doc struct {
			Metadata struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			return nil, fmt.Errorf("document %d: %w: %w", i+1, errs.Invalid, err)
		}
		if doc.Metadata.Name == "" {
			return nil, fmt.Errorf("document %d: metadata.name is missing: %w", i+1, errs.Invalid)
		}
		names = append(names, podName{doc.Metadata.Namespace, doc.Metadata.Name}.orDefault())
	}
	return names, nil
}

// podName names an applied pod.
type podName struct{ namespace, name string }

func (n podName) orDefault() podName {
	if n.namespace == "" {
		n.namespace = corev1.NamespaceDefault
	}
	return n
}

func (n podName) String() string { return n.namespace + "/" + n.name }

func key(p *corev1.Pod) string { return podName{p.Namespace, p.Name}.String() }

// hash tells one desired state from another. The uid is not part of it.
func hash(p *corev1.Pod) (string, error) {
	p = p.DeepCopy()
	p.UID = ""
	data, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
