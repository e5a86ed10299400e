package overlay

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/test/testutil"
)

// TestMountsShowAllLayers mounts as new kernels do and as old ones do.
func TestMountsShowAllLayers(t *testing.T) {
	testutil.Root(t)
	for name, mount := range map[string]func(Mount, string) error{"new": Mount.mount, "legacy": Mount.mountLegacy} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sub := func(d string) string {
				p := filepath.Join(dir, d)
				if err := os.Mkdir(p, 0o700); err != nil {
					t.Fatal(err)
				}
				return p
			}
			m := Mount{Lower: []string{sub("low"), sub("high")}, Upper: sub("upper"), Work: sub("work")}
			for n, f := range []string{"low/a", "low/b", "high/b"} {
				if err := os.WriteFile(filepath.Join(dir, f), []byte{byte('0' + n)}, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			target := sub("target")
			if err := mount(m, target); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(target, 0); err != nil {
					t.Error(err)
				}
			}()
			for f, want := range map[string]string{"a": "0", "b": "2"} {
				if data, err := os.ReadFile(filepath.Join(target, f)); err != nil || string(data) != want {
					t.Errorf("%s: %q, %v", f, data, err)
				}
			}
		})
	}
}
