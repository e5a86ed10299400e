package vm_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/vm"
)

// TestFileSystemsCountWhatContainersWrite runs the tests of package rootfs that need
// project quotas, which small kernels have not, on ext4 and on XFS.
func TestFileSystemsCountWhatContainersWrite(t *testing.T) {
	built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	tests := filepath.Join(t.TempDir(), "rootfs.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", tests, "github.com/berth-run/berth/pkg/image/rootfs").CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	m := boot(ctx, t, vm.Debian("xfsprogs"), map[string]string{"rootfs.test": tests}, vm.Options{})
	names := []string{
		"TestTheFileSystemCountsWhatAContainerWrites", "TestProjectsAreTheContainersOwnAndUsedAgain",
		"TestAContainerThatLeavesItsProjectIsFoundOut", "TestWhatIsAnAdministratorsProjectStaysSo",
	}
	out, err := m.Run(ctx, "modprobe loop; cd /tmp && /tools/rootfs.test -test.v -test.run '^("+strings.Join(names, "|")+")$' 2>&1")
	for _, name := range names {
		for _, kind := range []string{"ext4", "xfs"} {
			if !strings.Contains(out, "--- PASS: "+name+"/"+kind+" (") {
				t.Errorf("%s on %s did not pass", name, kind)
			}
		}
	}
	if err != nil || t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
}
