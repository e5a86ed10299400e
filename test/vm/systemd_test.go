package vm_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/vm"
)

// TestAMachineBootsSystemd is what tests of the systemd cgroup driver, AppArmor
// and units begin with.
func TestAMachineBootsSystemd(t *testing.T) {
	built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	m := boot(ctx, t, vm.Debian(), nil, vm.Options{Systemd: true})
	out, err := m.Run(ctx, "cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; uname -r")
	if want := "systemd\ncgroup2fs\n6."; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("inside: %q, %v", out, err)
	}
	if out, err := m.Run(ctx, "echo told; exit 3"); err == nil || out != "told\n" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a script that fails: %q, %v", out, err)
	}
}
