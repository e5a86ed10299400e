package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

func TestNoNewPrivilegesAndSeccompAreTheKernels(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := runPod(t)
	for name, c := range map[string]struct {
		change        func(*cri.LinuxContainerSecurityContext)
		nnp, filtered string
	}{
		"nothing":           {func(*cri.LinuxContainerSecurityContext) {}, "0", "0"},
		"no new privileges": {func(s *cri.LinuxContainerSecurityContext) { s.NoNewPrivs = true }, "1", "0"},
		"default":           {profileOf(cri.SecurityProfile_RuntimeDefault, ""), "0", "2"},
		"unconfined":        {profileOf(cri.SecurityProfile_Unconfined, ""), "0", "0"},
		"file":              {profileOf(cri.SecurityProfile_Localhost, profile), "0", "2"},
		"old words":         {func(s *cri.LinuxContainerSecurityContext) { s.SeccompProfilePath = "runtime/default" }, "0", "2"},
	} {
		s := kernelStatus(p, func(k *cri.ContainerConfig) { c.change(security(k)) })
		if s["NoNewPrivs"] != c.nnp || s["Seccomp"] != c.filtered {
			t.Errorf("%s: no new privileges %s, seccomp %s", name, s["NoNewPrivs"], s["Seccomp"])
		}
	}
	config := sh("mkdir /x; mkdir /tmp/y; true")
	profileOf(cri.SecurityProfile_Localhost, profile)(security(config))
	if out := p.start(config).output(); strings.Count(out, "Function not implemented") != 2 {
		t.Errorf("the profile's error: %q", out)
	}
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"missing file":  profileOf(cri.SecurityProfile_Localhost, "/no/such/profile"),
		"relative path": profileOf(cri.SecurityProfile_Localhost, "profile.json"),
		"no profile":    profileOf(cri.SecurityProfile_Localhost, "/etc/hostname"),
	} {
		config := sh("true")
		change(security(config))
		if err := p.createError(config); err == nil || code(err) == codes.Unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASeccompAgentAnswersForContainersAndExecs(t *testing.T) {
	agent := testutil.NewAgent(t, int32(unix.EXDEV))
	profile := filepath.Join(t.TempDir(), "profile.json")
	write(t, profile, `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"`+agent.Path+`","listenerMetadata":"of the profile",
		"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_NOTIFY"}]}`)
	told := 0
	test := func(t *testing.T, p *pod) {
		config := sh("mkdir /x 2>&1; exec sleep 1000")
		profileOf(cri.SecurityProfile_Localhost, profile)(security(config))
		c := p.start(config)
		eventually(t, func() error {
			if out := c.written(); !strings.Contains(out, "link") {
				return fmt.Errorf("the first process: %q", out)
			}
			return nil
		})
		if out := c.sh("mkdir /y 2>&1; true"); !strings.Contains(out, "link") {
			t.Errorf("an exec: %q", out)
		}
		all := agent.Told()[told:]
		told += len(all)
		if len(all) != 2 || all[0].Metadata != "of the profile" || all[1].State.ID != c.id || all[0].Pid == all[1].Pid {
			t.Errorf("told: %+v", all)
		}
	}
	test(t, runPod(t))
	test(t, runPod(t, userNS))
	eachCommand(t, test)

	write(t, profile, `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/no/such/agent","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}`)
	config := sh("true")
	profileOf(cri.SecurityProfile_Localhost, profile)(security(config))
	if err := runPod(t).createError(config); code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "seccomp agent at /no/such/agent") {
		t.Errorf("without the agent: %v", err)
	}
}

func profileOf(kind cri.SecurityProfile_ProfileType, ref string) func(*cri.LinuxContainerSecurityContext) {
	return func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	}
}

func TestTheDefaultProfileRefusesWhatNobodyNeeds(t *testing.T) {
	p := runPod(t)
	config := sh("unshare -U true && echo unshared; true")
	profileOf(cri.SecurityProfile_RuntimeDefault, "")(security(config))
	if out := p.start(config).output(); strings.Contains(out, "unshared") || !strings.Contains(out, "not permitted") {
		t.Errorf("unshare says %q", out)
	}
}
