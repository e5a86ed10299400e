package podspec

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

// Document is one pod of a file, with defaults set, and what is to be said of
// fields that are ignored.
type Document struct {
	Pod      *corev1.Pod
	Warnings []string
}

// Parse reads all documents of a file. A field that Kubernetes does not know,
// or that Berth cannot honour, is an error that names it.
func Parse(data []byte) ([]Document, error) {
	var all []Document
	seen := map[Name]bool{}
	for i, raw := range split(data) {
		d, err := parseDocument(raw)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if seen[NameOf(d.Pod)] {
			return nil, fmt.Errorf("document %d: pod %s is in the file twice: %w", i+1, NameOf(d.Pod), errs.Invalid)
		}
		seen[NameOf(d.Pod)] = true
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

func parseDocument(raw []byte) (Document, error) {
	data, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return Document{}, fmt.Errorf("%s: %w", oneLine(err), errs.Invalid)
	}
	var kind struct{ APIVersion, Kind string }
	if err := json.Unmarshal(data, &kind); err != nil {
		return Document{}, fmt.Errorf("%w: %w", errs.Invalid, err)
	}
	if kind.Kind != "Pod" || kind.APIVersion != "v1" {
		return Document{}, fmt.Errorf("apiVersion %q, kind %q: only v1 Pods are run: %w", kind.APIVersion, kind.Kind, errs.Unsupported)
	}
	pod := &corev1.Pod{}
	strict, err := kjson.UnmarshalStrict(data, pod)
	if err == nil {
		err = errors.Join(strict...)
	}
	if err != nil {
		return Document{}, fmt.Errorf("%s: %w", oneLine(err), errs.Invalid)
	}
	warnings, err := judge(data)
	if err != nil {
		return Document{}, fmt.Errorf("pod %q: %w", pod.Name, err)
	}
	setDefaults(pod)
	err = Validate(pod)
	if err == nil {
		err = checkFieldRefs(pod)
	}
	if err != nil {
		return Document{}, fmt.Errorf("pod %q: %w", pod.Name, err)
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault {
			warnings = append(warnings, "volume "+v.Name+": emptyDir.sizeLimit is enforced with medium Memory alone")
		}
	}
	for i := range warnings {
		warnings[i] = "pod " + pod.Name + ": " + warnings[i]
	}
	return Document{pod, warnings}, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// ParseNames reads no more of a file than the names of its pods. A document
// that does not tell its kind is taken for one.
func ParseNames(data []byte) ([]Name, error) {
	var names []Name
	for i, raw := range split(data) {
		var doc struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			return nil, fmt.Errorf("document %d: %w: %w", i+1, errs.Invalid, err)
		}
		if doc.Kind != "" && doc.Kind != "Pod" {
			continue
		}
		if doc.Metadata.Name == "" {
			return nil, fmt.Errorf("document %d: metadata.name is missing: %w", i+1, errs.Invalid)
		}
		names = append(names, Name{doc.Metadata.Namespace, doc.Metadata.Name}.OrDefault())
	}
	return names, nil
}

// Name names a pod.
type Name struct{ Namespace, Name string }

// OrDefault fills in the default namespace.
func (n Name) OrDefault() Name {
	if n.Namespace == "" {
		n.Namespace = corev1.NamespaceDefault
	}
	return n
}

// String returns NAMESPACE/NAME.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// NameOf returns the pod's name.
func NameOf(p *corev1.Pod) Name { return Name{p.Namespace, p.Name} }

// Hash tells one desired state from another. The uid is not part of it.
func Hash(p *corev1.Pod) (string, error) {
	p = p.DeepCopy()
	p.UID = ""
	data, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
