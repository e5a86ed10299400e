package main

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

func TestErrorsAreOneLineThatSaysWhatToDo(t *testing.T) {
	d := startDaemon(t)
	d.addImage("docker.io/library/busybox:latest", "sha256:"+strings.Repeat("a", 64))
	d.ok(t, "run", "-d", "--name", "web", "busybox", "sleep", "1d")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--host", "unix:///nowhere/berth.sock", "ps"}, "berth: no daemon answers at /nowhere/berth.sock; start it with: berthd --standalone\n"},
		{[]string{"--host", "tcp://1.2.3.4", "ps"}, "berth: host \"tcp://1.2.3.4\": berthd is reached by a unix socket, as in unix:///run/berth/berth.sock\n"},
		{[]string{"stop", "nobody"}, "berth: no container \"nobody\"\n"},
		{[]string{"rm", "web"}, "berth: container web runs: stop it first (berth stop web), or use -f\n"},
		{[]string{"run", "--name", "web", "busybox", "sleep", "1"}, "berth: the name \"web\" is taken by pod 010000000000: remove it (berth rm web), or give another with --name\n"},
		{[]string{"run", "-p", "x", "busybox"}, "berth: port \"x\": \"x\" is no port from 1 to 65535; write [[HOSTIP:]HOSTPORT:]PORT[/tcp|udp|sctp], as in 8080:80\n"},
		{[]string{"run", "--memory", "lots", "busybox"}, "berth: --memory: size \"lots\": write a number and b, k, m, g or t, as in 512m\n"},
		{[]string{"run", "--network", "host", "--hostname", "x", "busybox"}, "berth: a host name cannot be given with network host: the host's name stays\n"},
		{[]string{"run", "--entrypoint", "", "busybox"}, "berth: an empty entry point leaves nothing to run: name a command after the image\n"},
		{[]string{"run", "--pull", "never", "gone", "x"}, "berth: no image \"gone\" on this node\n"},
		{[]string{"run", "-it", "busybox", "x"}, "berth: stdin is no terminal: leave out -t\n"},
		{[]string{"run", "--name", "y", "busybox", "missing"}, "berth: exec: \"missing\": executable file not found in $PATH: no such program\n"},
		{[]string{"exec", "-it", "web", "sh"}, "berth: stdin is no terminal: leave out -t\n"},
		{[]string{"rmi", "busybox"}, "berth: image aaaaaaaaaaaa is used by container web: remove that first, or use -f\n"},
		{[]string{"kill", "-s", "SIGNOPE", "web"}, "berth: signal \"SIGNOPE\": give a name as in TERM, or a number from 1 to 64\n"},
		{[]string{"ps", "--bogus"}, "berth: unknown flag: --bogus; see berth ps --help\n"},
		{[]string{"ps", "-o", "xml"}, "berth: output \"xml\": choose json or yaml\n"},
		{[]string{"inspect", "-o", "table", "web"}, "berth: output \"table\": choose json or yaml\n"},
		{[]string{"inspect", "Gone"}, "berth: no container, pod or image \"Gone\"\n"},
		{[]string{"delete", "gone"}, "berth: no applied pod \"gone\" in namespace \"default\"\n"},
	} {
		if got := d.fails(t, tc.args...); got != tc.want {
			t.Errorf("berth %s:\n got %s want %s", strings.Join(tc.args, " "), got, tc.want)
		}
	}
	if len(d.pods) != 1 || len(d.containers) != 1 {
		t.Errorf("a failed run left %d pods", len(d.pods)-1)
	}
}

func TestRunInTheForegroundShowsOutputAndPassesTheExitCodeOn(t *testing.T) {
	d := startDaemon(t)
	code, out, errOut := d.berth(t, "", "run", "--rm", "-q", "busybox", "say", "hello")
	if code != 0 || out != "hello\n" || errOut != "error\n" {
		t.Errorf("got %d, %q, %q", code, out, errOut)
	}
	if len(d.pods) != 0 || !slices.Contains(d.requests, "Pull busybox :") || !slices.Contains(d.requests, "RemoveLogs") {
		t.Errorf("%d pods left, requests %q", len(d.pods), d.requests)
	}
	if code, _, _ := d.berth(t, "", "run", "--name", "x", "busybox", "exit", "42"); code != 42 || len(d.pods) != 1 {
		t.Errorf("exit code %d, %d pods", code, len(d.pods))
	}
	if code, out, errOut := d.berth(t, "from stdin", "run", "-i", "busybox", "cat"); code != 0 || out != "from stdin\n" {
		t.Errorf("cat: %d, %q, %q", code, out, errOut)
	}
}

func TestListsAndLogs(t *testing.T) {
	d := startDaemon(t)
	id := strings.TrimSpace(d.ok(t, "run", "-q", "-d", "--name", "web", "-p", "8080:80", "-l", "tier=front", "busybox", "sleep", "1d"))
	d.ok(t, "run", "-q", "-d", "--name", "job", "busybox", "say", "done")
	want := "CONTAINER ID   IMAGE     COMMAND    CREATED       STATUS      PORTS                NAME   POD\n" +
		"020000000000   busybox   sleep 1d   2 hours ago   Up 1 hour   0.0.0.0:8080->80/tcp   web    web\n"
	if got := d.ok(t, "ps"); squeeze(got) != squeeze(want) {
		t.Errorf("ps:\n%s", got)
	}
	if got := d.ok(t, "ps", "-aq", "--no-trunc", "--filter", "label=tier=front"); got != id+"\n" {
		t.Errorf("ps -q: %s", got)
	}
	if got := d.ok(t, "ps", "-a", "--filter", "name=job"); !strings.Contains(got, "Exited (0) 5 minutes ago") {
		t.Errorf("ps -a: %s", got)
	}
	var list []container
	if err := json.Unmarshal([]byte(d.ok(t, "ps", "-a", "-o", "json")), &list); err != nil || len(list) != 2 {
		t.Errorf("ps -o json: %v, %v", list, err)
	}
	if got := d.ok(t, "ps", "-o", "yaml"); !strings.Contains(got, "name: web\n") {
		t.Errorf("ps -o yaml: %s", got)
	}
	if code, out, errOut := d.berth(t, "", "logs", "job"); code != 0 || out != "done\n" || errOut != "error\n" {
		t.Errorf("logs: %d, %q, %q", code, out, errOut)
	}
	if _, out, errOut := d.berth(t, "", "logs", "-f", "-t", "--tail", "1", "job"); out != "" || errOut != "2026-01-02T15:04:06.100000000Z error\n" {
		t.Errorf("logs -f: %q, %q", out, errOut)
	}
	if got := d.ok(t, "logs", "--since", "2026-01-02T15:04:06Z", "job"); got != "" {
		t.Errorf("logs --since: %q", got)
	}
	if got := d.ok(t, "pods"); !regexp.MustCompile(`web +default +Ready +0 +10.1.0.2 `).MatchString(got) {
		t.Errorf("pods: %s", got)
	}
}

func squeeze(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

func TestVerbsOnContainers(t *testing.T) {
	d := startDaemon(t)
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	if code, out, errOut := d.berth(t, "", "exec", "web", "ls", "-l"); code != 3 || out != "ls -l\n" || errOut != "oh\n" {
		t.Errorf("exec: %d, %q, %q", code, out, errOut)
	}
	if got := d.ok(t, "inspect", "web"); !strings.Contains(got, `"state": "CONTAINER_RUNNING"`) {
		t.Errorf("inspect: %s", got)
	}
	if got := d.ok(t, "stop", "-t", "3", "02"); got != "02\n" {
		t.Errorf("stop: %s", got)
	}
	if got := d.ok(t, "run", "--help"); !strings.Contains(got, "berth run [flags] IMAGE [COMMAND] [ARG...]\n") {
		t.Errorf("help: %s", got)
	}
	d.ok(t, "rm", "web")
	d.ok(t, "run", "-q", "-d", "--name", "bare", "--entrypoint", "", "busybox", "sleep", "1d")
	for _, c := range d.containers {
		if c.config.Metadata.Name == "bare" && (!slices.Equal(c.config.Command, []string{"sleep", "1d"}) || c.config.Args != nil) {
			t.Errorf("without an entry point: %q %q", c.config.Command, c.config.Args)
		}
		c.config.Labels[apiv1.LabelOwner] = apiv1.OwnerManifest
	}
	if got := d.fails(t, "rm", "bare"); !strings.Contains(got, "berth delete bare") {
		t.Errorf("rm of an applied pod's: %s", got)
	}
	if _, _, errOut := d.berth(t, "", "stop", "bare"); !strings.Contains(errOut, "berth delete bare") {
		t.Errorf("stop of an applied pod's: %s", errOut)
	}
	for id, c := range d.containers {
		c.config.Labels[apiv1.LabelOwner] = apiv1.OwnerRun
		d.ok(t, "rm", "-f", id)
	}
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	d.ok(t, "kill", "-s", "term", "web/web")
	d.ok(t, "rm", "-f", "web")
	for _, want := range []string{"StopContainer 3", "Kill 15", "RemovePodSandbox"} {
		if !slices.Contains(d.requests, want) {
			t.Errorf("no %s in %q", want, d.requests)
		}
	}
	if len(d.pods) != 0 {
		t.Errorf("%d pods left", len(d.pods))
	}
}

func TestRmTakesAPodThatHasNoContainer(t *testing.T) {
	d := startDaemon(t)
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	pod := slices.Collect(maps.Keys(d.pods))[0]
	if got := d.fails(t, "rm", "-f", pod); !strings.HasPrefix(got, "berth: no container") {
		t.Errorf("rm of a pod with a container: %s", got)
	}
	clear(d.containers) // as if run had been killed before it made it
	if got := d.ok(t, "rm", "web"); got != "web\n" || len(d.pods) != 0 || !slices.Contains(d.requests, "RemoveLogs") {
		t.Errorf("rm: %s, %d pods are left", got, len(d.pods))
	}
	d.ok(t, "run", "-q", "-d", "--name", "kubelets", "busybox", "sleep", "1d")
	clear(d.containers)
	for _, p := range d.pods {
		delete(p.Labels, apiv1.LabelOwner)
	}
	d.fails(t, "rm", "kubelets")
}

func TestVerbsOnImages(t *testing.T) {
	d := startDaemon(t)
	code, out, errOut := d.berth(t, "secret\n", "pull", "-u", "me", "--password-stdin", "busybox")
	if code != 0 || out != "sha256:"+strings.Repeat("9", 64)+"\n" || errOut != "resolving\n1234567890ab: downloading 2MB\n1234567890ab: done 2MB\n" {
		t.Errorf("pull: %d, %q, %q", code, out, errOut)
	}
	if !slices.Contains(d.requests, "Pull busybox me:secret") {
		t.Errorf("got %q", d.requests)
	}
	if got := d.ok(t, "images", "--digests"); squeeze(got) != "REPOSITORY TAG DIGEST IMAGE ID SIZE\nbusybox latest sha256:dd 999999999999 4.26MB\n" {
		t.Errorf("images: %s", got)
	}
	if got := d.ok(t, "images", "-q"); got != "999999999999\n" {
		t.Errorf("images -q: %s", got)
	}
	d.images["other"] = &runtimeapi.Image{Id: "sha256:" + strings.Repeat("8", 64), RepoDigests: []string{"quay.io/other@sha256:ee"}}
	if got := d.ok(t, "images", "busybox"); strings.Contains(got, "other") || !strings.Contains(got, "busybox") {
		t.Errorf("images of one repository: %s", got)
	}
	if got := d.ok(t, "images", "quay.io/other"); squeeze(got) != "REPOSITORY TAG IMAGE ID SIZE\nquay.io/other <none> 888888888888 0B\n" {
		t.Errorf("images that have a digest alone: %s", got)
	}
	delete(d.images, "other")
	if got := d.ok(t, "rmi", "busybox"); !strings.Contains(got, "Untagged: docker.io/library/busybox:latest\nDeleted: sha256:99") {
		t.Errorf("rmi: %s", got)
	}
	d.images["docker.io/library/busybox:latest"].RepoTags = []string{"docker.io/library/busybox:latest", "b:1"}
	if got := d.ok(t, "rmi", "busybox"); got != "Untagged: docker.io/library/busybox:latest\n" {
		t.Errorf("rmi of one of two names: %s", got)
	}
	if code, out, _ := d.berth(t, strings.Repeat("x", 3<<20), "load"); code != 0 || out != "Loaded a:1\n" || d.archive.Len() != 3<<20 {
		t.Errorf("load: %d, %q, %d bytes", code, out, d.archive.Len())
	}
	path := filepath.Join(t.TempDir(), "a.tar")
	d.ok(t, "save", "-o", path, "busybox")
	if data, err := os.ReadFile(path); err != nil || string(data) != "archive" {
		t.Errorf("save: %q, %v", data, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() { data, _ := os.ReadFile(fifo); read <- string(data) }() // the bytes tell
	d.ok(t, "save", "-o", fifo, "busybox")
	if info, err := os.Lstat(fifo); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Fatalf("the FIFO is now %v, %v", info.Mode(), err)
	}
	if got := <-read; got != "archive" {
		t.Errorf("save to a FIFO: %q", got)
	}
}

func TestApplyWaitsAndWarns(t *testing.T) {
	d := startDaemon(t)
	d.manifests = []*apiv1.ManifestStatus{{Namespace: "default", Name: "web", Phase: "Running", Uid: "u"}}
	code, out, errOut := d.berth(t, "kind: Pod\n", "apply", "--wait", "-f", "-")
	if code != 0 || out != "pod/web created\n" || !strings.Contains(errOut, "berth: warning: pod web: spec.containers[0].livenessProbe") {
		t.Errorf("got %d, %q, %q", code, out, errOut)
	}
	if got := d.ok(t, "delete", "web"); got != "pod/web deleted\n" {
		t.Errorf("delete: %s", got)
	}
	d.manifests[0].Phase, d.manifests[0].Reason, d.manifests[0].Message = "Pending", "ImagePullBackOff", "a: no such host"
	if got := d.fails(t, "apply", "--wait", "--timeout", "300ms", "-f", os.DevNull); !strings.Contains(got, "after 300ms pod web is Pending (ImagePullBackOff: a: no such host)") {
		t.Errorf("got %s", got)
	}
	if got := d.ok(t, "pods"); !strings.Contains(got, "ImagePullBackOff") {
		t.Errorf("pods: %s", got)
	}
	if got := d.ok(t, "pods", "-q"); got != "" {
		t.Errorf("pods -q of one without a sandbox: %q", got)
	}
	failed := &apiv1.ManifestStatus{Namespace: "default", Name: "job", Phase: "Failed", Uid: "v"}
	both := []*apiv1.ApplyResponse_Applied{{Namespace: "default", Name: "web"}, {Namespace: "default", Name: "job"}}
	if _, err := podsUp(both, append(d.manifests, failed)); err == nil || !strings.Contains(err.Error(), "pod job failed") {
		t.Errorf("a failed one behind one that is not up: %v", err)
	}
}

func TestCheckInfoAndVersion(t *testing.T) {
	d := startDaemon(t)
	if got := d.ok(t, "check"); got != "Everything fits together.\n" {
		t.Errorf("check: %s", got)
	}
	d.problems = []*apiv1.Problem{{Store: "image", Object: "x", What: "torn record"}}
	if got := d.fails(t, "check"); got != "berth: found 1 problem: mend them with berth check --repair\n" {
		t.Errorf("check: %s", got)
	}
	info := d.ok(t, "info")
	for _, want := range []string{"1.0, pid 42, up 3 hours", "anchor 43, worker 44", "no: NetworkPluginNotReady no configuration in /etc/cni/net.d"} {
		if !strings.Contains(info, want) {
			t.Errorf("info lacks %q:\n%s", want, info)
		}
	}
	if got := d.ok(t, "version", "-o", "json"); !strings.Contains(got, `"daemon": "1.0"`) {
		t.Errorf("version: %s", got)
	}
	if got := d.ok(t, "--host", "unix:///nowhere/s", "version"); !strings.Contains(got, "no daemon answers") {
		t.Errorf("version without a daemon: %s", got)
	}
}

func TestHelpIsGroupedAndCompletionOffersNames(t *testing.T) {
	d := startDaemon(t)
	help := d.ok(t)
	for _, want := range []string{"Containers:\n", "Images:\n", "Pods:\n", "  run "} {
		if !strings.Contains(help, want) {
			t.Errorf("help lacks %q", want)
		}
	}
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	if got := d.ok(t, "__complete", "stop", ""); !strings.HasPrefix(got, "web\n") {
		t.Errorf("stop: %s", got)
	}
	if got := d.ok(t, "__complete", "run", ""); !strings.HasPrefix(got, "busybox:latest\n") {
		t.Errorf("run: %s", got)
	}
}

func TestRunFlagsBecomeConfigs(t *testing.T) {
	d := startDaemon(t)
	envFile := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(envFile, []byte("# no\nA=1\nB=\"quoted\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.ok(t, "run", "-q", "-d", "-i", "--rm", "--name", "web.1", "-p", "127.0.0.1:8080:80/udp", "-v", "/srv:/data:ro,rslave", "-v", "cache:/cache",
		"-e", "A=2", "--env-file", envFile, "-w", "/w", "-u", "1000:100", "-m", "512m", "--cpus", "1.5", "--entrypoint", "/bin/sh", "--read-only",
		"--cap-add", "cap_net_admin", "--cap-drop", "ALL", "-l", "tier=front", "--device", "/dev/fuse:r", "--device", "vendor.com/gpu=0", "busybox", "-c", "echo -p")
	for id, p := range d.pods {
		p.Metadata.Uid, p.Labels[apiv1.LabelPodUID], p.LogDirectory = "UID", "UID", "LOGS"
		golden(t, "run-pod.json", id, marshal(t, func() ([]byte, error) { return protojson.Marshal(p) }))
	}
	for id, c := range d.containers {
		c.config.Labels[apiv1.LabelPodUID] = "UID"
		golden(t, "run-container.json", id, marshal(t, func() ([]byte, error) { return protojson.Marshal(c.config) }))
	}
}

// marshal indents anew: protojson's spaces differ from build to build.
func marshal(t *testing.T, encode func() ([]byte, error)) string {
	t.Helper()
	data, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	data, err = json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata; -update rewrites it.
func golden(t *testing.T, name, what, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s of %s:\n%s", what, name, d)
	}
}

func TestWordsForTimesAndSizes(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		0: "less than a second", time.Second: "1 second", 90 * time.Second: "1 minute", 25 * time.Hour: "25 hours",
		72 * time.Hour: "3 days", 20 * 24 * time.Hour: "2 weeks", 900 * 24 * time.Hour: "2 years",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 4_260_000: "4.26MB", 999_999: "1MB", 10_300_000_000: "10.3GB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	if got := statusWords(&runtimeapi.ContainerStatus{State: 2, ExitCode: 137, Reason: "OOMKilled", FinishedAt: now.Add(-time.Minute).UnixNano()}, now); got != "Exited (137) 1 minute ago, out of memory" {
		t.Errorf("got %q", got)
	}
}

func TestSinceAndTail(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"": {}, "10m": now.Add(-10 * time.Minute), "2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		"2026-01-01": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), "1": time.Unix(1, 0),
	} {
		if got, err := parseSince(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if _, err := parseSince("tomorrow", now); err == nil {
		t.Error("tomorrow was taken")
	}
	if _, err := parseTail("-2"); err == nil {
		t.Error("-2 was taken")
	}
}
