//go:build seccomp

package libct

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// asking is a specification whose seccomp profile leaves some system calls to an
// agent.
func asking(t *testing.T, id, agent string, calls ...string) *specs.Spec {
	t.Helper()
	spec := baseSpec(t, id, "/bin/sleep", "1000")
	spec.Annotations = map[string]string{"some": "annotation"}
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: agent, ListenerMetadata: "some metadata",
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
		Syscalls:      []specs.LinuxSyscall{{Names: calls, Action: specs.ActNotify}},
	}
	return spec
}

func TestAnAgentAnswersForContainersAndExecs(t *testing.T) {
	e := newEngine(t)
	agent := testutil.NewAgent(t, int32(unix.EXDEV))
	spec := asking(t, "n1", agent.Path, "mkdir", "mkdirat")
	spec.Process.Args = []string{"/bin/sh", "-c", "mkdir /tmp/own 2>&1; exec sleep 1000"}
	b := create(t, e, "n1", spec).start()
	want := specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: b.p.PID, Metadata: "some metadata",
		State: specs.State{Version: specs.Version, ID: "n1", Status: specs.StateCreating, Pid: b.p.PID},
	}
	told := agent.Told()
	if len(told) != 1 {
		t.Fatalf("told of %d processes", len(told))
	}
	bundle, err := os.ReadFile(filepath.Join(told[0].State.Bundle, "config.json"))
	if err != nil || !strings.Contains(string(bundle), "some metadata") || told[0].State.Annotations["some"] != "annotation" {
		t.Errorf("bundle %s, annotations %v: %v", told[0].State.Bundle, told[0].State.Annotations, err)
	}
	want.State.Bundle, want.State.Annotations = told[0].State.Bundle, told[0].State.Annotations
	if diff := cmp.Diff(want, told[0]); diff != "" {
		t.Error(diff)
	}
	if line, err := bufio.NewReader(b.stdout).ReadString('\n'); err != nil || !strings.Contains(line, "Invalid cross-device link") {
		t.Errorf("the first process: %q, %v", line, err)
	}
	for i, nnp := range []bool{false, true} {
		p := b.process("/bin/sh", "-c", "echo $$; mkdir /tmp/d 2>&1; grep Seccomp: /proc/self/status | cut -f2")
		p.NoNewPrivileges = nnp
		out, _, err := b.run(p)
		if err != nil || !strings.HasSuffix(out, "Invalid cross-device link\n2\n") {
			t.Errorf("exec, no_new_privs %t: %v: %s", nnp, err, out)
		}
		told := agent.Told()
		if len(told) != 2+i || told[1+i].Pid == b.p.PID || told[1+i].State.Pid != b.p.PID || told[1+i].State.Status != specs.StateRunning || told[1+i].Metadata != "some metadata" {
			t.Errorf("exec, no_new_privs %t: told %+v", nnp, told)
		}
	}
	if agent.Asked() != 3 {
		t.Errorf("asked for %d calls", agent.Asked())
	}
}

func TestAnAgentIsStillToldAfterANewWorkerHasTakenOver(t *testing.T) {
	e := newEngine(t)
	agent := testutil.NewAgent(t, int32(unix.EXDEV))
	b := create(t, e, "n2", asking(t, "n2", agent.Path, "mkdir", "mkdirat")).start()
	again, err := New(e.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.e = again
	if out := b.sh("mkdir /tmp/d 2>&1 || :"); !strings.Contains(out, "Invalid cross-device link") || len(agent.Told()) != 2 {
		t.Errorf("%q, told %v", out, agent.Told())
	}
}

func TestWithoutItsAgentNothingIsMade(t *testing.T) {
	e := newEngine(t)
	missing := filepath.Join(t.TempDir(), "nobody")
	_, err := e.Create(t.Context(), "n3", asking(t, "n3", missing, "mkdir"), runtime.ProcessIO{})
	if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "seccomp agent at "+missing) {
		t.Errorf("create: %v", err)
	}
	for _, pattern := range []string{"[^.]*", bundlesDir + "/*", notesDir + "/*"} {
		if left, _ := filepath.Glob(filepath.Join(e.opts.Root, pattern)); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
	}
	for what, change := range map[string]func(*specs.LinuxSeccomp){
		"nobody to ask":     func(s *specs.LinuxSeccomp) { s.ListenerPath = "" },
		"all calls":         func(s *specs.LinuxSeccomp) { s.DefaultAction = specs.ActNotify },
		"the call it needs": func(s *specs.LinuxSeccomp) { s.Syscalls[0].Names = []string{"write"} },
	} {
		spec := asking(t, "n3", missing, "mkdir")
		change(spec.Linux.Seccomp)
		if _, err := e.Create(t.Context(), "n3", spec, runtime.ProcessIO{}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}

	agent := testutil.NewAgent(t, 0)
	b := create(t, e, "n4", asking(t, "n4", agent.Path, "mkdir")).start()
	if err := os.Rename(agent.Path, agent.Path+".gone"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.run(b.process("true")); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "seccomp agent at "+agent.Path) {
		t.Errorf("exec: %v", err)
	}
}

func TestAnAgentThatDoesNotAnswerKeepsNobody(t *testing.T) {
	e := newEngine(t)
	agent := testutil.NewAgent(t, -1)
	// untilAsked ends as soon as the agent has a question that it does not answer.
	untilAsked := func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // until the test's end at the latest
			select {
			case <-agent.Unanswered:
			case <-t.Context().Done():
			}
			cancel()
		}()
		return ctx
	}
	_, err := e.Create(untilAsked(), "n5", asking(t, "n5", agent.Path, "capset"), runtime.ProcessIO{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	spec := asking(t, "n6", agent.Path, "setgroups")
	spec.Linux.Seccomp.Syscalls[0].Args = []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}
	b := create(t, e, "n6", spec).start()
	p := b.process("true")
	p.User.AdditionalGids = []uint32{7}
	if _, err := e.Exec(untilAsked(), "n6", "e", p, runtime.ProcessIO{}); !errors.Is(err, context.Canceled) {
		t.Errorf("exec: %v", err)
	}
	if got := b.sh("set -- /proc/[0-9]*; echo $#"); got != "2" { // sleep and sh
		t.Errorf("%s processes", got)
	}
}

func TestWhatAnAgentAnswersForIsNotCheckpointed(t *testing.T) {
	e := newEngine(t)
	spec := asking(t, "n7", "/agent", "mkdir")
	config, err := e.whole("n7", spec, spec.Process)
	if err == nil {
		err = dumpable(config)
	}
	if !errors.Is(err, errs.Unsupported) {
		t.Errorf("got %v", err)
	}
}

// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV takes Linux 5.19 and a build with libseccomp 2.6.
func TestAFlagOfAProfileIsKeptOrRefused(t *testing.T) {
	e := newEngine(t)
	agent := testutil.NewAgent(t, int32(unix.EXDEV))
	spec := asking(t, "n8", agent.Path, "mkdir", "mkdirat")
	flags := []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagWaitKillableRecv}
	spec.Linux.Seccomp.Flags = flags
	config, err := e.whole("n8", spec, spec.Process)
	if err != nil {
		if !strings.Contains(err.Error(), "WaitKill requires libseccomp") {
			t.Errorf("got %v", err)
		}
		flags = flags[:1]
	} else if p, err := e.seccomp.Of(config); err != nil || p.Flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV == 0 {
		t.Errorf("program %v, %v", p, err)
	}
	spec.Linux.Seccomp.Flags = flags
	b := create(t, e, "n8", spec).start()
	if out := b.sh("mkdir /tmp/d 2>&1 || :"); !strings.Contains(out, "Invalid cross-device link") {
		t.Errorf("got %q", out)
	}
}
