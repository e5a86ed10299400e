package podspec

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// manifest wraps a spec, and what is to come after it.
func manifest(spec string) []byte {
	return []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n" + spec)
}

const oneContainer = "  containers: [{name: a, image: i}]\n"

func TestFieldsThatCannotBeHonouredAreNamed(t *testing.T) {
	for _, tc := range []struct{ spec, want string }{
		{"  containers: [{name: a, image: i, imagee: x}]\n", `unknown field "spec.containers[0].imagee"`},
		{oneContainer + "  restartPolice: Never\n", `unknown field "spec.restartPolice"`},
		{oneContainer + "  hostNetwork: yes please\n", "hostNetwork"},
		{"  containers: [{name: a, image: i, image: j}]\n", `key "image" already set`},
		{"  containers: [{name: a, image: i, envFrom: [{configMapRef: {name: x}}]}]\n", "spec.containers[0].envFrom is not supported by berth apply: give the values in env"},
		{"  containers: [{name: a, image: i, env: [{name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]\n", "spec.containers[0].env[0].valueFrom.secretKeyRef is not supported"},
		{"  containers: [{name: a, image: i, env: [{name: X, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]}]\n", "resourceFieldRef is not supported"},
		{"  containers: [{name: a, image: i, env: [{name: X, valueFrom: {fieldRef: {fieldPath: spec.nonsense}}}]}]\n", `container "a": env X: fieldRef "spec.nonsense" is not supported by berth apply`},
		{"  containers: [{name: a, image: i, lifecycle: {preStop: {exec: {command: [x]}}}}]\n", "spec.containers[0].lifecycle is not supported"},
		{oneContainer + "  volumes: [{name: c, configMap: {name: x}}]\n", "spec.volumes[0].configMap is not supported by berth apply: mount a file with hostPath"},
		{oneContainer + "  volumes: [{name: c, secret: {secretName: x}}]\n", "spec.volumes[0].secret is not supported"},
		{oneContainer + "  imagePullSecrets: [{name: x}]\n", "berth pull --user"},
		{oneContainer + "  hostUsers: false\n", "spec.hostUsers is not supported"},
		{"  containers: []\n", "spec.containers is empty"},
		{"  containers: [{name: A, image: i}]\n", `container name "A"`},
		{"  containers: [{name: a, image: i}, {name: a, image: i}]\n", `container name "a"`},
		{"  containers: [{name: a}]\n", "names no image"},
		{"  containers: [{name: a, image: i, restartPolicy: Always}]\n", "restartPolicy is for init containers"},
		{"  containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}]}]\n", `mounts volume "v", which spec.volumes does not have`},
		{"  containers: [{name: a, image: i, resources: {limits: {example.com/gpu: 1}}}]\n", "resource example.com/gpu is not supported"},
		{"  containers: [{name: a, image: i, resources: {limits: {memory: lots}}}]\n", "quantities must match"},
		{oneContainer + "  volumes: [{name: ../x, emptyDir: {}}]\n", `spec.volumes "../x"`},
		{oneContainer + "  restartPolicy: Sometimes\n", "choose Always, OnFailure or Never"},
		{oneContainer + "  dnsPolicy: None\n", "needs spec.dnsConfig.nameservers"},
	} {
		_, err := Parse(manifest(tc.spec))
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s got %v\nwant %s", tc.spec, err, tc.want)
		}
		if !errors.Is(err, errs.Invalid) && !errors.Is(err, errs.Unsupported) {
			t.Errorf("kind of %v", err)
		}
	}
	for text, want := range map[string]string{
		"": "holds no pod", "# only a comment\n---\n": "holds no pod", "kind: Deployment\napiVersion: apps/v1\n": `kind "Deployment": only v1 Pods are run`,
		string(manifest(oneContainer)) + "---\n" + string(manifest(oneContainer)): "document 2: pod default/web is in the file twice",
		strings.Replace(string(manifest(oneContainer)), "web", "../../etc", 1):    `metadata.name "../../etc"`,
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestIgnoredFieldsAreWarnedOf(t *testing.T) {
	docs, err := Parse(manifest("  containers: [{name: a, image: i, livenessProbe: {httpGet: {port: 80}}}]\n  nodeSelector: {a: b}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pod web: spec.containers[0].livenessProbe: probes are not run yet", "pod web: spec.nodeSelector: has no meaning without a cluster and is ignored"}
	if d := cmp.Diff(want, docs[0].Warnings); d != "" {
		t.Error(d)
	}
}

func TestDocumentsGetDefaults(t *testing.T) {
	docs, err := Parse([]byte("---\n" + string(manifest(oneContainer)) + "\n---\n# nothing\n---\n" + strings.Replace(string(manifest("  containers: [{name: a, image: 'r:5000/i:1'}]\n")), "web", "db", 1)))
	if err != nil || len(docs) != 2 {
		t.Fatalf("got %v, %v", docs, err)
	}
	p := docs[0].Pod
	if p.Namespace != "default" || p.Spec.RestartPolicy != corev1.RestartPolicyAlways || *p.Spec.TerminationGracePeriodSeconds != 30 {
		t.Errorf("got %v", p)
	}
	if a, b := p.Spec.Containers[0].ImagePullPolicy, docs[1].Pod.Spec.Containers[0].ImagePullPolicy; a != corev1.PullAlways || b != corev1.PullIfNotPresent {
		t.Errorf("pull policies %s, %s", a, b)
	}
	names, err := ParseNames([]byte("metadata: {name: a}\n---\nmetadata: {name: b, namespace: ns}\nspec: {nonsense: true}\n"))
	if err != nil || len(names) != 2 || names[0].String() != "default/a" || names[1].String() != "ns/b" {
		t.Errorf("got %v, %v", names, err)
	}
}

func TestHashSeesWhatIsWantedOnly(t *testing.T) {
	hash := func(spec string, uid string) string {
		docs, err := Parse(manifest(spec))
		if err != nil {
			t.Fatal(err)
		}
		docs[0].Pod.UID = "u"
		h, err := Hash(docs[0].Pod)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if hash(oneContainer, "1") != hash(oneContainer+"  restartPolicy: Always\n", "2") {
		t.Error("a default or the uid changes the hash")
	}
	if hash(oneContainer, "") == hash(oneContainer+"  restartPolicy: Never\n", "") {
		t.Error("another restart policy does not change the hash")
	}
}

func TestExpandIsKubernetes(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	for s, want := range map[string]string{
		"": "", "x": "x", "$(A)": "1", "a$(A)b": "a1b", "$(NO)": "$(NO)", "$$(A)": "$(A)", "$$$(A)": "$1", "$": "$", "a$": "a$",
		"$(": "$(", "$(A": "$(A", "$(B)": "$(A)", "$x$(A)": "$x1", "$()": "$()",
	} {
		if got := expand(s, values); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestScoresAndPageSizes(t *testing.T) {
	for spec, want := range map[string]int64{
		"": 1000, "{limits: {cpu: 1, memory: 1Gi}}": -997, "{requests: {memory: 2Gi}}": 500, "{requests: {memory: 4Gi}}": 3, "{requests: {cpu: 10m}}": 999,
	} {
		docs, err := Parse(manifest("  containers: [{name: a, image: i, resources: " + spec + "}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := oomScoreAdj(docs[0].Pod, &docs[0].Pod.Spec.Containers[0], 4<<30); got != want {
			t.Errorf("%s: got %d, want %d", spec, got, want)
		}
	}
	for name, want := range map[string]string{"hugepages-2Mi": "2MB", "hugepages-1Gi": "1GB", "hugepages-64Ki": "64KB"} {
		if got, err := hugepage(name); err != nil || got != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestRunAsNonRootIsChecked(t *testing.T) {
	image := func(uid *int64, name string) *runtimeapi.Image {
		return &runtimeapi.Image{Uid: int64Value(uid), Username: name}
	}
	zero, one := int64(0), int64(1)
	for _, tc := range []struct {
		spec  string
		image *runtimeapi.Image
		ok    bool
	}{
		{"{}", image(nil, ""), true},
		{"{runAsNonRoot: true}", image(nil, ""), false},
		{"{runAsNonRoot: true}", image(&zero, ""), false},
		{"{runAsNonRoot: true}", image(&one, ""), true},
		{"{runAsNonRoot: true}", image(nil, "www"), false},
		{"{runAsNonRoot: true, runAsUser: 5}", image(nil, ""), true},
		{"{runAsNonRoot: true, runAsUser: 0}", image(&one, ""), false},
	} {
		docs, err := Parse(manifest(oneContainer + "  securityContext: " + tc.spec + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckNonRoot(docs[0].Pod, &docs[0].Pod.Spec.Containers[0], tc.image); (err == nil) != tc.ok {
			t.Errorf("%s with %v: %v", tc.spec, tc.image, err)
		}
	}
}

func TestResolvConfIsRead(t *testing.T) {
	got := parseResolvConf(strings.NewReader("# c\nnameserver 1.1.1.1\nnameserver ::1\ndomain x\nsearch a b\noptions ndots:5 rotate\n"))
	want := &runtimeapi.DNSConfig{Servers: []string{"1.1.1.1", "::1"}, Searches: []string{"a", "b"}, Options: []string{"ndots:5", "rotate"}}
	if !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden turns testdata/NAME.yaml into testdata/NAME.json; -update rewrites
// the latter.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("%d inputs, %v", len(inputs), err)
	}
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			t.Fatal(err)
		}
		got := convert(t, data)
		path := strings.TrimSuffix(input, ".yaml") + ".json"
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s:\n%s", path, d)
		}
	}
}

func convert(t *testing.T, data []byte) []byte {
	t.Helper()
	docs, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	p := docs[0].Pod
	p.UID = "UID"
	out := map[string]any{"warnings": docs[0].Warnings, "pod": message(t, Sandbox(p, 2, "/logs"))}
	volumes := map[string]string{}
	for _, v := range p.Spec.Volumes {
		volumes[v.Name] = "/volumes/" + v.Name
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		config, err := Container(p, c, Input{Attempt: 3, ImageID: "sha256:i", Facts: Facts{PodIPs: []string{"10.0.0.2"}, NodeName: "node"}, NodeMemory: 8 << 30, Volumes: volumes})
		if err != nil {
			t.Fatal(err)
		}
		out[c.Name] = message(t, config)
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func message(t *testing.T, m proto.Message) any {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func FuzzParse(f *testing.F) {
	f.Add(manifest(oneContainer))
	f.Add([]byte("---\n---\nkind: Pod\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Parse(data)
		if err != nil {
			return
		}
		for _, d := range docs {
			if strings.ContainsAny(NameOf(d.Pod).Name+d.Pod.Namespace, "/_") {
				t.Errorf("name %q", NameOf(d.Pod))
			}
			for i := range d.Pod.Spec.Containers {
				_, _ = Container(d.Pod, &d.Pod.Spec.Containers[i], Input{}) // must not panic
			}
			Sandbox(d.Pod, 0, "")
		}
	})
}

func TestDeleteNamesPodsAlone(t *testing.T) {
	const service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	names, err := ParseNames(append(manifest(oneContainer), service...))
	if err != nil || len(names) != 1 || names[0] != (Name{"default", "web"}) {
		t.Errorf("got %v, %v", names, err)
	}
}

func TestSizeLimitOnDiskIsWarnedOf(t *testing.T) {
	all, err := Parse(manifest(oneContainer + "  volumes: [{name: disk, emptyDir: {sizeLimit: 1Mi}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]\n"))
	if err != nil || len(all[0].Warnings) != 1 || !strings.HasPrefix(all[0].Warnings[0], "pod web: volume disk: emptyDir.sizeLimit") {
		t.Errorf("got %v, %v", all, err)
	}
}
