package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
)

func TestCommandAndArgumentsFollowKubernetes(t *testing.T) {
	both := variant(t, func(i *images.Image) {
		i.Config.Entrypoint, i.Config.Cmd = []string{"/bin/echo", "entry"}, []string{"cmd", "more"}
	})
	cmd := variant(t, func(i *images.Image) { i.Config.Cmd = []string{"echo", "only cmd"} })
	none := variant(t, func(i *images.Image) { i.Config.Entrypoint, i.Config.Cmd = nil, nil })
	p := runPod(t)
	for name, c := range map[string]struct {
		image         string
		command, args []string
		want          string
	}{
		"image's":          {both, nil, nil, "entry cmd more"},
		"args":             {both, nil, []string{"arg"}, "entry arg"},
		"command":          {both, []string{"/bin/echo", "own"}, nil, "own"},
		"command and args": {both, []string{"/bin/echo", "own"}, []string{"arg", "b c", ""}, "own arg b c "},
		"cmd alone":        {cmd, nil, nil, "only cmd"},
		"args of none":     {none, nil, []string{"echo", "args"}, "args"},
	} {
		config := sh("")
		config.Image.Image, config.Command, config.Args = c.image, c.command, c.args
		if out := p.start(config).output(); out != c.want {
			t.Errorf("%s: got %q, want %q", name, out, c.want)
		}
	}
	config := sh("")
	config.Image.Image, config.Command = none, nil
	if err := p.createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestTheWorkingDirectoryIsMadeWhereItIsMissing(t *testing.T) {
	image := variant(t, func(i *images.Image) { i.Config.WorkingDir = "/from/image" })
	p := runPod(t)
	for name, c := range map[string]struct{ image, dir, want string }{
		"default":           {busybox, "", "/"},
		"image's":           {image, "", "/from/image"},
		"configured":        {image, "/tmp", "/tmp"},
		"missing":           {busybox, "/not/there/yet", "/not/there/yet"},
		"relative":          {busybox, "var", "/var"},
		"not out of itself": {busybox, "/../../..", "/"},
	} {
		config := sh("pwd")
		config.Image.Image, config.WorkingDir = c.image, c.dir
		if out := p.start(config).output(); out != c.want {
			t.Errorf("%s: got %q, want %q", name, out, c.want)
		}
	}
}

func TestTheEnvironmentIsJoined(t *testing.T) {
	image := variant(t, func(i *images.Image) {
		i.Config.Env = append(i.Config.Env, "IMAGE=image", "BOTH=image", "EMPTY=")
	})
	p := runPod(t)
	config := sh("")
	config.Image.Image = image
	config.Command = []string{"/bin/cat", "/proc/self/environ"}
	for key, value := range map[string]string{"LINES": "a\nb=\x01", "BOTH": "config", "UTF": "ü→𝄞", "NOTHING": "", "LONG": strings.Repeat("x", 100_000)} {
		config.Envs = append(config.Envs, &cri.KeyValue{Key: key, Value: []byte(value)})
	}
	c := p.start(config)
	c.await()
	var got []byte
	for _, l := range c.log() { // bytes, not text
		got = append(got, l.text...)
		if l.tag == "F" {
			got = append(got, '\n')
		}
	}
	all := "\x00" + string(got)
	for _, want := range []string{"LINES=a\nb=\x01", "BOTH=config", "IMAGE=image", "UTF=ü→𝄞", "EMPTY=", "NOTHING=", "HOME=/root", "LONG=" + strings.Repeat("x", 100_000)} {
		if !strings.Contains(all, "\x00"+want+"\x00") {
			t.Errorf("no %.60q in %.3000q", want, all)
		}
	}
	if n := strings.Count(all, "\x00BOTH="); n != 1 {
		t.Errorf("BOTH is there %d times", n)
	}
	for name, kv := range map[string]*cri.KeyValue{
		"equals in the name": {Key: "A=B", Value: []byte("x")}, "no name": {Value: []byte("x")}, "zero byte": {Key: "A", Value: []byte("x\x00y")},
	} {
		config := sh("true")
		config.Envs = []*cri.KeyValue{kv}
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheEnvironmentNeedNotBeText(t *testing.T) {
	const raw = "\xff\xfe latin \xe4"
	p := runPod(t)
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"root":    func(*cri.LinuxContainerSecurityContext) {},
		"user":    func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1000} },
		"seccomp": profileOf(cri.SecurityProfile_RuntimeDefault, ""),
	} {
		config := sleeper()
		config.Command = []string{"sh", "-c", "cat /proc/self/environ; echo; ls /proc/self/fd | tr '\\n' ' '; echo end; exec sleep 100000"}
		config.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte(raw)}}
		change(security(config))
		c := p.start(config)
		eventually(t, func() error { return wantText(c.written(), "end") })
		if out := c.written(); !strings.Contains(out, "RAW="+raw+"\x00") || !strings.Contains(out, "\n0 1 2 3 end") {
			t.Errorf("%s: container: %q", name, out)
		}
		r, err := c.execSync(t.Context(), 10, "/bin/cat", "/proc/self/environ")
		if err != nil || !bytes.Contains(r.Stdout, []byte("RAW="+raw+"\x00")) {
			t.Errorf("%s: exec: %q, %v", name, r.GetStdout(), err)
		}
	}
	config := sh("")
	config.Command = []string{"no-such-program"}
	config.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte(raw)}}
	if err := p.createError(config); code(err) != codes.InvalidArgument {
		t.Errorf("missing program: %v", err)
	}
}

func TestTheStopSignalIsTheConfigurationsOrTheImages(t *testing.T) {
	image := func(signal string) string {
		return variant(t, func(i *images.Image) { i.Config.StopSignal = signal })
	}
	p := runPod(t)
	const script = "trap 'echo int; exit' INT; trap 'echo quit; exit' QUIT; trap 'echo usr1; exit' USR1; trap 'echo rt; exit' 37; trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.02; done"
	for name, c := range map[string]struct {
		image  string
		signal cri.Signal
		want   string
		status cri.Signal
	}{
		"image's name":   {image("SIGINT"), 0, "int", cri.Signal_SIGNAL_SIGINT},
		"image's number": {image("3"), 0, "quit", cri.Signal_SIGNAL_SIGQUIT},
		"configuration":  {image("SIGINT"), cri.Signal_SIGNAL_SIGUSR1, "usr1", cri.Signal_SIGNAL_SIGUSR1},
		"real time":      {image("SIGRTMIN+3"), 0, "rt", cri.Signal_SIGNAL_SIGRTMINPLUS3},
		"default":        {busybox, 0, "term", cri.Signal_SIGNAL_SIGTERM},
	} {
		config := sh(script)
		config.Image.Image, config.StopSignal = c.image, c.signal
		k := p.start(config)
		eventually(t, func() error { return wantText(k.written(), "ready") })
		k.stop(20)
		if got := k.written(); got != "ready\n"+c.want || k.status().StopSignal != c.status {
			t.Errorf("%s: wrote %q, status %v", name, got, k.status().StopSignal)
		}
	}
}

func TestExitCodesAreTrue(t *testing.T) {
	p := runPod(t)
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{
		"exit 0": {0, "Completed"}, "exit 255": {255, "Error"}, "kill -TERM $$; sleep 1": {143, "Error"}, "kill -KILL $$": {137, "Error"}, "kill -SEGV $$": {139, "Error"},
	} {
		config := sh(script)
		// The first process of a namespace is deaf to what it sends itself.
		security(config).NamespaceOptions = &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_NODE}
		if s := p.start(config).await(); s.ExitCode != want.code || s.Reason != want.reason || s.FinishedAt < s.StartedAt {
			t.Errorf("%s: %v", script, s)
		}
	}
}

func TestAFailedStartIsAnEnd(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "bin/broken", Data: []byte("\x7fELF nothing"), Mode: 0o755}}})
	})
	p := runPod(t)
	config := sh("")
	config.Image.Image, config.Command = name, []string{"/bin/broken"}
	inherit(config, p.config)
	r, err := berth.Runtime.CreateContainer(t.Context(), p.request(config))
	if err != nil {
		return // told early, as well
	}
	c := &ctr{t, p, r.ContainerId}
	_, err = berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: c.id})
	s := c.await()
	if err == nil && s.ExitCode == 0 || s.ExitCode == 0 || s.Reason == "Completed" {
		t.Errorf("start: %v, status %v", err, s)
	}
}

func TestOnlyAnEndForbidsAStart(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	pid := c.pid()
	c.start() // its caller may not have heard of the first
	if c.pid() != pid {
		t.Error("a second start has started it again")
	}
	ended := p.startAndEnd()
	if _, err := berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: ended.id}); code(err) != codes.FailedPrecondition {
		t.Errorf("after its end: %v", err)
	}
	if _, err := berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: "0123456789"}); code(err) != codes.NotFound {
		t.Errorf("one that is not there: %v", err)
	}
}

func (p *pod) startAndEnd() *ctr {
	c := p.start(sh("true"))
	c.await()
	return c
}

func TestARunningContainerCanBeRemoved(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	pid, cgroup := c.pid(), c.cgroup("memory")
	if _, err := berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fmt.Sprintf("/proc/%d", pid), cgroup} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}
