package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/vm"
)

// TestAMachineBootsSystemd is what tests of the systemd cgroup driver, AppArmor
// and units begin with.
func TestAMachineBootsSystemd(t *testing.T) {
	if os.Getenv("BERTH_BIN") == "" {
		t.Skip("BERTH_BIN is not set: run make vm")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	dir, err := filepath.Abs(*cache)
	must(t, err)
	root, err := vm.Debian().Make(ctx, dir)
	must(t, err)
	tools := filepath.Join(t.TempDir(), "tools.img")
	must(t, vm.MakeTools(ctx, tools, nil))
	began := time.Now()
	m, err := vm.Boot(ctx, vm.Options{Root: root, Tools: tools, Systemd: true})
	must(t, err)
	t.Cleanup(m.Kill)
	t.Logf("booted in %s", time.Since(began).Round(time.Second))
	out, err := m.Run(ctx, "cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; uname -r")
	if want := "systemd\ncgroup2fs\n6."; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("inside: %q, %v", out, err)
	}
	if out, err := m.Run(ctx, "echo told; exit 3"); err == nil || out != "told\n" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a script that fails: %q, %v", out, err)
	}
}
