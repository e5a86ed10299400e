package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

// profile confines no more than the tests look for.
const profile = `
profile berth-e2e flags=(attach_disconnected,mediate_deleted) {
  network, capability, file, umount, signal, ptrace, unix,
  deny /tmp/denied rwk,
}
`

// loadProfile has the kernel know of the profile while the test runs.
func loadProfile(t *testing.T) {
	t.Helper()
	if enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(enabled), "Y") {
		t.Skip("this machine has no AppArmor; make vm has one that does")
	}
	parser, err := exec.LookPath("apparmor_parser")
	testutil.Need(t, err == nil, "apparmor_parser")
	load := func(option string) error {
		c := exec.Command(parser, option, "--skip-cache")
		c.Stdin = strings.NewReader(profile)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("apparmor_parser %s: %v: %s", option, err, out)
		}
		return err
	}
	if load("--replace") != nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = load("--remove") }) // it has told the test
}

func appArmor(kind cri.SecurityProfile_ProfileType, name string) *cri.ContainerConfig {
	c := sh("cat /proc/self/attr/current; echo x > /tmp/denied && echo written; sleep 1000")
	security(c).Apparmor = &cri.SecurityProfile{ProfileType: kind, LocalhostRef: name}
	return c
}

func TestAppArmorConfinesAsAsked(t *testing.T) {
	loadProfile(t)
	p := runPod(t)
	const confined, free = "berth-e2e (enforce)", "unconfined"
	for name, k := range map[string]struct {
		config      *cri.ContainerConfig
		want, wrote string
	}{
		"by name":    {appArmor(cri.SecurityProfile_Localhost, "berth-e2e"), confined, "denied"},
		"unconfined": {appArmor(cri.SecurityProfile_Unconfined, ""), free, "written"},
		"deprecated": {func() *cri.ContainerConfig {
			c := appArmor(0, "")
			security(c).Apparmor = nil
			security(c).ApparmorProfile = "localhost/berth-e2e" // what old kubelets send
			return c
		}(), confined, "denied"},
	} {
		c := p.start(k.config)
		eventually(t, func() error { return wantText(c.written(), k.want) })
		eventually(t, func() error { return wantText(c.written(), k.wrote) })
		if out := c.sh("cat /proc/self/attr/current; (echo x > /tmp/denied) 2>&1 && echo written; true"); !strings.Contains(out, k.want) || !strings.Contains(out, k.wrote) {
			t.Errorf("%s: an exec: %q", name, out)
		}
	}
	if err := p.createError(appArmor(cri.SecurityProfile_Localhost, "berth-no-such")); err == nil || code(err) == codes.Unknown {
		t.Errorf("a profile that is not loaded: %v", err)
	}
}
