package vm_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/vm"
)

// startWithDevice starts Berth below systemd, and a container with a vendor's device:
// NVIDIA's first, which no driver is behind, and udev does not know of even where one
// is.
const startWithDevice = `
mkdir -p /etc/cdi && mknod -m 666 /dev/gpu0 c 195 0
echo '{"cdiVersion":"0.6.0","kind":"vm.local/gpu","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/gpu","hostPath":"/dev/gpu0"}]}}]}' >/etc/cdi/gpu.json
berthd --standalone >/tmp/berthd.log 2>&1 &
for i in $(seq 600); do berth info >/dev/null 2>&1 && break; sleep 0.2; done
berth info | grep cgroup && berth load -i /tools/busybox.tar >&2 &&
berth run -d -q --network host --name gpu --device vm.local/gpu=0 vm.local/busybox:1 sleep 1d >&2 || { cat /tmp/berthd.log; exit 1; }`

// TestADeviceOutlivesADaemonReload has systemd write its own rules for devices anew,
// which for GPUs is how they are lost with other runtimes.
func TestADeviceOutlivesADaemonReload(t *testing.T) {
	bin := built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	work := t.TempDir()
	busybox, err := images.Busybox()
	must(t, err)
	var archive bytes.Buffer
	must(t, images.Archive(&archive, "vm.local/busybox:1", busybox))
	must(t, os.WriteFile(filepath.Join(work, "busybox.tar"), archive.Bytes(), 0o600))
	tools := map[string]string{"busybox.tar": filepath.Join(work, "busybox.tar")}
	for _, name := range []string{"berthd", "berth", "berth-runtime"} {
		tools[name] = filepath.Join(bin, name)
	}
	m := boot(ctx, t, vm.Debian(), tools, vm.Options{Systemd: true})
	run := func(script string) string {
		t.Helper()
		out, err := m.Run(ctx, script)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(out)
	}
	if out := run(startWithDevice); !strings.Contains(out, "systemd") {
		t.Fatalf("not systemd's cgroups: %s", out)
	}
	const use, let = `berth exec gpu /bin/sh -c ': >/dev/gpu' 2>&1 || true`, "No such device"
	if out := run(use); !strings.Contains(out, let) {
		t.Fatalf("the device: %q", out)
	}
	if out := run("systemctl daemon-reload && " + use); !strings.Contains(out, let) {
		t.Errorf("after daemon-reload: %q", out)
	}
	unit := run(`systemctl list-units --type=scope --plain --no-legend | grep -o '[^ ]*berth[^ ]*\.scope' | head -1`)
	if out := run("systemctl show -P DeviceAllow " + unit); !strings.Contains(out, "/dev/char/195:0 rwm") {
		t.Errorf("%s allows %q", unit, out)
	}
	if out := run("systemctl set-property --runtime " + unit + " DeviceAllow= && systemctl daemon-reload && " + use); !strings.Contains(out, "not permitted") {
		t.Errorf("the unit's rules do not count, or this test tests nothing: %q", out)
	}
}
