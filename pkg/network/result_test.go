package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

// openAnswering attaches pods with a plugin that answers ADD with a result.
func openAnswering(t *testing.T, result string) *Service {
	t.Helper()
	root := t.TempDir()
	bin, conf := filepath.Join(root, "bin"), filepath.Join(root, "net.d")
	writeFile(t, filepath.Join(conf, "10.conflist"), `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"answer"}]}`)
	writeFile(t, filepath.Join(bin, "answer"), "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || echo '"+result+"'\n")
	if err := os.Chmod(filepath.Join(bin, "answer"), 0o755); err != nil {
		t.Fatal(err)
	}
	return open(t, Options{Root: root, ConfDir: conf, BinDirs: []string{bin}})
}

func TestOnlyAddressesOfThePodsInterfaceAreItsOwn(t *testing.T) {
	host(t)
	s := openAnswering(t, `{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/ns"},{"name":"eth0"},{"name":"other","sandbox":"/ns"}],
 "ips":[{"address":"10.0.0.1/24","interface":0},{"address":"10.0.0.2/24","interface":1},{"address":"10.0.0.3/24","interface":2},
 {"address":"10.0.0.4/24","interface":3},{"address":"10.0.0.5/24"}]}`)
	if got := fmt.Sprint(attach(t, s, pod("", "a")).IPs); got != "[10.0.0.2 10.0.0.5]" {
		t.Errorf("got %s", got)
	}
}

func TestAPodWithoutAnAddressIsRefused(t *testing.T) {
	host(t)
	s := openAnswering(t, `{"cniVersion":"1.0.0","interfaces":[{"name":"br"}],"ips":[{"address":"10.0.0.1/24","interface":0}]}`)
	if _, err := s.Attach(t.Context(), pod(newNetNS(t), "a")); !errors.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
	if s.records.Get("a") != nil {
		t.Error("record stays")
	}
}
