package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

// commands are the handlers of the shared node whose containers OCI runtimes make.
var commands = []string{"crun", "runc"}

// movable is the path of the program of a handler of that name: a link to runc.
func movable(dir string) string { return filepath.Join(dir, "movable") }

// commandHandlers is the configuration of those whose programs are installed.
func commandHandlers(dir string) string {
	var b strings.Builder
	for _, name := range commands {
		if path, err := testutil.FindCommand(name, dir); err == nil {
			fmt.Fprintf(&b, "[runtime.handlers.%s]\npath = %q\n", name, path)
		}
	}
	if path, err := testutil.FindCommand("runc", dir); err == nil && os.Symlink(path, movable(dir)) == nil {
		fmt.Fprintf(&b, "[runtime.handlers.movable]\npath = %q\n%s\n", movable(dir), handlersOwn)
	}
	return b.String()
}

// eachCommand runs test in a pod of each such handler, and looks for what it leaves.
func eachCommand(t *testing.T, test func(t *testing.T, p *pod), change ...func(*cri.PodSandboxConfig)) {
	t.Helper()
	for _, name := range commands {
		t.Run(name, func(t *testing.T) {
			_, err := testutil.FindCommand(name, t.TempDir())
			testutil.Need(t, err == nil, name)
			config := podConfig(t)
			for _, f := range change {
				f(config)
			}
			r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: name})
			if err != nil {
				t.Fatal(err)
			}
			p := &pod{t, r.PodSandboxId, config}
			defer func() {
				p.remove()
				for _, pattern := range []string{"oci/" + name + "/*", "runtime/engine/.oci/*", "runtime/exits/:exec*"} {
					eventually(t, func() error {
						left, err := filepath.Glob(filepath.Join(berth.State(), pattern))
						left = slices.DeleteFunc(left, func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") })
						if err != nil || len(left) > 0 {
							return fmt.Errorf("left over: %q, %w", left, err)
						}
						return nil
					})
				}
			}()
			test(t, p)
		})
	}
}

func TestCommandsMakeContainers(t *testing.T) {
	eachCommand(t, func(t *testing.T, p *pod) {
		c := p.start(sh("echo out; echo err >&2; hostname; exit 3"))
		if s := c.await(); s.ExitCode != 3 || s.Reason != "Error" {
			t.Errorf("got %v", s)
		}
		if out := c.output(); !strings.Contains(out, "out") || !strings.Contains(out, "err") {
			t.Errorf("log %q", out)
		}
		longer := p.start(sh("trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done"))
		if out, code := longer.exec("/bin/sh", "-c", "echo $0 in; exit 4"); out != "/bin/sh in\n" || code != 4 {
			t.Errorf("exec: %q, exit %d", out, code)
		}
		if _, err := longer.execSync(t.Context(), 1, "/bin/sh", "-c", "sleep 4711 & sleep 4711"); code(err) != codes.DeadlineExceeded {
			t.Errorf("exec that does not end: %v", err)
		}
		eventually(t, func() error {
			if out := longer.sh("ps | grep '[s]leep 4711' | cat"); out != "" {
				return fmt.Errorf("it runs on: %s", out)
			}
			return nil
		})
		for program, want := range map[string]int{"no-such-program": 127, "/no/such/program": 127, "/etc/passwd": 126, "/bin": 126} {
			if got := try(t, "", "exec", longer.id, program); got.code != want {
				t.Errorf("exec of %s: %v", program, got)
			}
			config := sh("")
			config.Command = []string{program}
			if err := p.createError(config); code(err) != codes.InvalidArgument {
				t.Errorf("%s: %v", program, err)
			}
		}
		if err := longer.update(&cri.LinuxContainerResources{MemoryLimitInBytes: 50 << 20}); err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			s, err := berth.Runtime.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: longer.id})
			if err != nil || s.Stats.Memory.WorkingSetBytes.GetValue() == 0 {
				return fmt.Errorf("stats %v, %w", s, err)
			}
			return nil
		})
		longer.stop(20)
		if s := longer.await(); s.ExitCode != 5 || longer.output() != "bye" {
			t.Errorf("stopped: %v, %q", s, longer.output())
		}
		stubborn := p.start(sh("trap '' TERM; while :; do sleep 0.1; done"))
		stubborn.stop(1)
		if s := stubborn.await(); s.ExitCode != 137 {
			t.Errorf("killed: %v", s)
		}
	}, own)
}

func TestCommandsTakeTheSpecification(t *testing.T) {
	eachCommand(t, func(t *testing.T, p *pod) {
		config := sleeper()
		security(config).RunAsUser = &cri.Int64Value{Value: 1234}
		security(config).NoNewPrivs = true
		security(config).ReadonlyRootfs = true
		security(config).Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
		config.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b")}}
		config.Linux.Resources = &cri.LinuxContainerResources{OomScoreAdj: 321, MemoryLimitInBytes: 64 << 20}
		config.Mounts = []*cri.Mount{{HostPath: t.TempDir(), ContainerPath: "/data"}}
		c := p.start(config)
		want := "1234 b 321 1 2 pod"
		if got := c.sh(`echo $(id -u) $A $(cat /proc/self/oom_score_adj) $(grep NoNewPrivs /proc/self/status | cut -f2) $(grep Seccomp: /proc/self/status | cut -f2) $(hostname | cut -c1-3)`); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, code := c.exec("/bin/sh", "-c", "echo >/file"); code == 0 {
			t.Error("the root file system is writable")
		}
		other := p.start(sleeper())
		if a, b := c.sh("readlink /proc/self/ns/net"), other.sh("readlink /proc/self/ns/net"); a != b {
			t.Errorf("networks %s and %s", a, b)
		}
	}, own, func(c *cri.PodSandboxConfig) { c.Hostname = "pod-of-command" })
}

func TestContainersOfCommandsShareThePodsProcesses(t *testing.T) {
	eachCommand(t, func(t *testing.T, p *pod) {
		one, two := p.start(sh("sleep 4712 & wait")), p.start(sleeper())
		eventually(t, func() error {
			if out := two.sh("ps"); !strings.Contains(out, "sleep 4712") {
				return fmt.Errorf("processes: %s", out)
			}
			return nil
		})
		one.stop(0)
		one.await()
		eventually(t, func() error {
			if out := two.sh("ps"); strings.Contains(out, "sleep 4712") {
				return fmt.Errorf("what the first process left: %s", out)
			}
			return nil
		})
	}, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	})
}

// TestContainersOfCommandsOutliveBothDaemons kills berthd and the worker.
func TestContainersOfCommandsOutliveBothDaemons(t *testing.T) {
	eachCommand(t, func(t *testing.T, p *pod) {
		running, created := p.start(sh("trap 'exit 6' TERM; echo up; while :; do sleep 0.1; done")), p.create(sh("exit 8"))
		ending := p.start(sh("sleep 2; exit 7"))
		withoutDaemon(t, berth.Kill, func() {
			v, err := berth.Supervisor().Version(context.Background())
			if err == nil {
				err = syscall.Kill(v.WorkerPID, syscall.SIGKILL)
			}
			if err != nil {
				t.Error(err)
			}
		})
		if out := running.sh("echo in"); out != "in" {
			t.Errorf("exec: %q", out)
		}
		created.start()
		for c, want := range map[*ctr]int32{created: 8, ending: 7} {
			if s := c.await(); s.ExitCode != want {
				t.Errorf("exit %d, want %d", s.ExitCode, want)
			}
		}
		running.stop(20)
		if s := running.await(); s.ExitCode != 6 || running.output() != "up" {
			t.Errorf("stopped: %v", s)
		}
	})
}

func TestWhatAHandlersProgramCannotIsRefused(t *testing.T) {
	config := podConfig(t)
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{
		Mode: cri.NamespaceMode_POD, Uids: []*cri.IDMapping{{HostId: 200000, Length: 65536}}, Gids: []*cri.IDMapping{{HostId: 200000, Length: 65536}},
	}
	config.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
	r, err := berth.Runtime.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, h := range r.RuntimeHandlers {
		if !slices.Contains(commands, h.Name) || h.Features.UserNamespaces {
			continue
		}
		looked++
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: h.Name}); err == nil || !strings.Contains(err.Error(), h.Name) {
			t.Errorf("%s: a pod with a user namespace: %v", h.Name, err)
		}
	}
	if looked == 0 {
		t.Skip("these programs know idmapped mounts")
	}
}

func TestPodsOfAMissingProgramAreRefusedUntilItIsThere(t *testing.T) {
	link := movable(berth.Dir)
	path, err := os.Readlink(link)
	testutil.Need(t, err == nil, "runc")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	config := podConfig(t)
	_, err = berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: "movable"})
	if code(err) != codes.Unknown || !strings.Contains(err.Error(), link) {
		t.Errorf("got %v", err)
	}
	status, statusErr := berth.Runtime.Status(t.Context(), &cri.StatusRequest{})
	out, doctorErr := berth.Berth(t.Context(), "doctor")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if statusErr != nil {
		t.Fatal(statusErr)
	}
	for _, c := range status.Status.Conditions {
		if missing := c.Type == "RuntimeHandlersReady"; c.Status == missing || missing != strings.Contains(c.Message, link) {
			t.Errorf("condition %v", c)
		}
	}
	if !strings.Contains(out, link) {
		t.Errorf("doctor says %q, %v", out, doctorErr)
	}
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: "movable"})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t, r.PodSandboxId, config}
	t.Cleanup(p.remove)
	if s := p.start(sh("exit 9")).await(); s.ExitCode != 9 {
		t.Errorf("got %v", s)
	}
}
