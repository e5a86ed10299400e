package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
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
