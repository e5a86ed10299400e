package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// manifest writes a manifest, whose pods are deleted at the test's end where
// they are still there.
func manifest(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pod.yaml")
	write(t, path, text)
	t.Cleanup(func() {
		if out := command0("delete", "-f", path); strings.Contains(out, "Failed") {
			t.Error(out)
		}
	})
	return path
}

// podOf is the manifest of one pod.
func podOf(name, spec string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", labels: {tier: front}}\nspec:\n  terminationGracePeriodSeconds: 1\n" + spec
}

// podListed is what pods tells of one, and nothing of one that is not there.
func podListed(t *testing.T, name string) (p struct {
	ID, Name, UID, Status, Message string
	Restarts                       int
},
) {
	t.Helper()
	list := []json.RawMessage{}
	decode(t, command(t, "pods", "-o", "json"), &list)
	for _, raw := range list {
		if decode(t, string(raw), &p); p.Name == name {
			return p
		}
		p.ID, p.Name = "", ""
	}
	p.Status, p.Message = "", ""
	return p
}

func awaitPhase(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, func() error {
		if p := podListed(t, name); p.Status != want {
			return fmt.Errorf("pod %s is %s %s, want %s", name, p.Status, p.Message, want)
		}
		return nil
	})
}

func TestAppliedPodHasWhatItsManifestSays(t *testing.T) {
	const port = "18330"
	dir := t.TempDir()
	write(t, filepath.Join(dir, "given"), "of the host\n")
	path := manifest(t, podOf("whole", `
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: `+dir+`, type: Directory}}
  initContainers:
  - {name: first, image: '`+busybox+`', command: [sh, -c, 'echo first >> /shared/order'], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: second, image: '`+busybox+`', command: [sh, -c, 'echo second >> /shared/order'], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: web
    image: `+busybox+`
    command: [sh, -c, 'cat /shared/order; echo $(GREETING), $(NAME) $(TIER); cp /host/given /shared/index.html; touch /host/made; exec httpd -f -p [::]:80 -h /shared']
    env:
    - {name: GREETING, value: hello}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    ports: [{containerPort: 80, hostPort: `+port+`}]
    volumeMounts: [{name: shared, mountPath: /shared}, {name: host, mountPath: /host}]
  - name: side
    image: `+busybox+`
    command: [sh, -c, 'df -k /memory | tail -n 1; cat /shared/order; exec sleep 1000']
    volumeMounts: [{name: shared, mountPath: /shared, readOnly: true}, {name: memory, mountPath: /memory}]
`))
	if out := command(t, "apply", "--wait", "-f", path); out != "pod/whole created\n" {
		t.Errorf("apply: %q", out)
	}
	wantAnswer(t, "127.0.0.1:"+port, "of the host")
	eventually(t, func() error { return wantText(command(t, "logs", "whole/web"), "first\nsecond\nhello, whole front\n") })
	eventually(t, func() error { return wantText(command(t, "logs", "whole/side"), "second\n") })
	if out := command(t, "logs", "side"); !strings.HasPrefix(out, "tmpfs") || strings.Fields(out)[1] != "1024" {
		t.Errorf("volume in memory: %q", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Error(err)
	}
	if out := command(t, "exec", "whole/side", "/bin/sh", "-c", "touch /shared/x || echo read-only"); !strings.Contains(out, "read-only") {
		t.Errorf("readOnly: %q", out)
	}
	if out := command(t, "ps"); !strings.Contains(out, "web ") || !strings.Contains(out, "side ") || strings.Contains(out, "first ") {
		t.Errorf("ps: %s", out)
	}
	if out := command(t, "ps", "--no-trunc", "--filter", "name=web"); !strings.Contains(out, "0.0.0.0:"+port+"->80/tcp") || !strings.Contains(out, "hello, whole front;") {
		t.Errorf("ports and command: %s", out)
	}
	if out := command(t, "ps", "-a", "--filter", "pod=whole"); !strings.Contains(out, "first ") || !strings.Contains(out, "Exited (0)") {
		t.Errorf("ps -a: %s", out)
	}
	deleteWholly(t, "whole", path)
}

// deleteWholly deletes the one pod of a manifest, which must leave nothing.
func deleteWholly(t *testing.T, name, path string) {
	t.Helper()
	uid := podListed(t, name).UID
	if out := command(t, "delete", "-f", path); out != "pod/"+name+" deleted\n" {
		t.Errorf("delete: %q", out)
	}
	if p := podListed(t, name); p.ID != "" {
		t.Errorf("left is %v", p)
	}
	for _, left := range []string{"manifests/volumes/" + uid, "logs/" + uid, "manifests/pods/default_" + name + ".json"} {
		if _, err := os.Stat(filepath.Join(berth.Dir, "data", left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
	if got := try(t, "", "delete", "-f", path); got.code != 1 || !strings.Contains(got.stderr, `no applied pod "`+name) {
		t.Errorf("again: %v", got)
	}
}

func TestRestartPoliciesAreKept(t *testing.T) {
	var all []string
	for policy, script := range map[string]string{
		"Always": "exit 0", "OnFailure": "[ -e /state/once ] && exit 0; touch /state/once; exit 3", "Never": "exit 3",
	} {
		all = append(all, podOf(strings.ToLower(policy), `
  restartPolicy: `+policy+`
  volumes: [{name: state, emptyDir: {}}]
  containers: [{name: c, image: '`+busybox+`', command: [sh, -c, '`+script+`'], volumeMounts: [{name: state, mountPath: /state}]}]
`))
	}
	path := manifest(t, "# three documents\n---\n"+strings.Join(all, "---\n")+"---\n")
	if out := command(t, "apply", "-f", path); strings.Count(out, " created\n") != 3 {
		t.Errorf("apply: %q", out)
	}
	awaitPhase(t, "never", "Failed")
	awaitPhase(t, "onfailure", "Succeeded")
	awaitPhase(t, "always", "CrashLoopBackOff")
	for name, least := range map[string]int{"never": 0, "onfailure": 1, "always": 1} {
		if p := podListed(t, name); p.Restarts < least || p.Restarts > 0 && name == "never" {
			t.Errorf("%s: %d restarts", name, p.Restarts)
		}
	}
	if got := try(t, "", "apply", "--wait", "--timeout", "20s", "-f", path); got.code != 1 || !strings.Contains(got.stderr, "pod never failed") || strings.Count(got.stdout, " unchanged\n") != 3 {
		t.Errorf("again: %v", got)
	}
	if out := command(t, "delete", "never", "onfailure", "always"); strings.Count(out, " deleted\n") != 3 {
		t.Errorf("delete: %q", out)
	}
}

func TestAnAppliedPodIsReplacedAndOutlivesTheDaemon(t *testing.T) {
	spec := func(answer string) string {
		return podOf("lasting", "  containers: [{name: c, image: '"+busybox+"', command: [sh, -c, 'echo "+answer+"; exec sleep 1000']}]\n")
	}
	path := manifest(t, spec("one"))
	command(t, "apply", "--wait", "-f", path)
	first := listed(t, "lasting")
	for name, end := range map[string]func() error{"stopped": berth.StopDaemon, "killed": berth.Kill} {
		withoutDaemon(t, end, func() {})
		if now := listed(t, "lasting"); now.ID != first.ID || now.State != "running" || podListed(t, "lasting").Status != "Running" {
			t.Errorf("after the daemon was %s: %+v, was %+v", name, now, first)
		}
	}
	withoutDaemon(t, berth.StopDaemon, func() {
		if err := berth.Supervisor().Delete(t.Context(), first.ID); err != nil { // it dies meanwhile
			t.Error(err)
		}
	})
	eventually(t, func() error {
		if now := listed(t, "lasting"); now.State != "running" || now.ID == first.ID {
			return fmt.Errorf("not restarted: %+v", now)
		}
		return nil
	})
	command(t, "kill", "lasting/c")
	eventually(t, func() error {
		if p := podListed(t, "lasting"); p.Restarts < 2 {
			return fmt.Errorf("%d restarts", p.Restarts)
		}
		return nil
	})
	write(t, path, spec("two"))
	if out := command(t, "apply", "--wait", "-f", path); out != "pod/lasting replaced\n" {
		t.Errorf("apply of a changed one: %q", out)
	}
	if out := command(t, "logs", "c"); out != "two\n" {
		t.Errorf("logs: %q", out)
	}
	if got := try(t, "", "rm", "lasting/c"); got.code != 1 || !strings.Contains(got.stderr, "berth delete lasting") {
		t.Errorf("rm: %v", got)
	}
}

func TestAManifestWithAnErrorLeavesNothing(t *testing.T) {
	good := podOf("good", "  containers: [{name: c, image: '"+busybox+"', command: [sleep, '1000']}]\n")
	for want, bad := range map[string]string{
		`unknown field "spec.containerz"`:        podOf("bad", "  containerz: []\n"),
		"configMap is not supported":             podOf("bad", "  volumes: [{name: v, configMap: {name: x}}]\n  containers: [{name: c, image: x}]\n"),
		"only v1 Pods are run":                   "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\n",
		"restartPolicy":                          podOf("bad", "  restartPolicy: Sometimes\n  containers: [{name: c, image: x}]\n"),
		`mounts volume "none"`:                   podOf("bad", "  containers: [{name: c, image: x, volumeMounts: [{name: none, mountPath: /x}]}]\n"),
		"is in the file twice":                   good,
		"document 2: ":                           "{",
		"fieldRef \"spec.nonsense\" is not supp": podOf("bad", "  containers: [{name: c, image: '"+busybox+"', env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nonsense}}}]}]\n"),
	} {
		got := try(t, good+"---\n"+bad, "apply", "-f", "-")
		if got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: %v", want, got)
			_ = command0("delete", "good", "bad")
		}
		if good := podListed(t, "good"); good.ID != "" || good.Status != "" {
			t.Errorf("%s: left is %v", want, good)
		}
	}
	if got := try(t, "", "apply", "-f", "/no/such/file"); got.code != 1 || !strings.Contains(got.stderr, "/no/such/file") {
		t.Errorf("no file: %v", got)
	}
}

func TestAnAppliedPodWaitsForItsImage(t *testing.T) {
	path := manifest(t, podOf("imageless", "  containers: [{name: c, image: 'e2e.local/none:1', imagePullPolicy: Never}]\n"))
	got := try(t, "", "apply", "--wait", "--timeout", "1s", "-f", path)
	if got.code != 1 || !strings.Contains(got.stderr, "ErrImageNeverPull") || !strings.Contains(got.stderr, "e2e.local/none:1") {
		t.Errorf("apply --wait: %v", got)
	}
	if out := command(t, "pods"); !strings.Contains(out, "ErrImageNeverPull") {
		t.Errorf("pods: %s", out)
	}
	pods, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil || len(pods.Items) == 0 {
		t.Errorf("no sandbox: %v, %v", pods, err)
	}
	if out := command(t, "delete", "imageless"); out != "pod/imageless deleted\n" {
		t.Errorf("delete: %q", out)
	}
}
