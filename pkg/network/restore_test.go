package network

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// leases returns the addresses in use.
func leases(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "10.*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAPodWhoseRecordIsUnreadableCanBeDetached(t *testing.T) {
	host(t)
	s := openTypical(t)
	req := publishing(t, "a", 8080)
	before, err := s.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, req.NetNS, "tcp", ":80", "pod a")
	if err := os.WriteFile(s.recordPath("a"), nil, 0o600); err != nil { // as after a power cut
		t.Fatal(err)
	}
	restarted := open(t, s.opts)
	if after, ok := restarted.Result("a"); !ok || !slices.Equal(after.IPs, before.IPs) {
		t.Errorf("result %v, before %v", after.IPs, before.IPs)
	}
	if got := ask(t, "", "tcp", before.IPs[0].String()+":80"); got != "pod a" {
		t.Errorf("the pod answers %q", got)
	}
	if problems, err := restarted.Check(t.Context(), []string{"a"}, true); err != nil || len(problems) != 1 || !problems[0].Repaired {
		t.Errorf("Check: %+v, %v", problems, err)
	}
	if problems, err := restarted.Check(t.Context(), []string{"a"}, false); err != nil || len(problems) != 0 {
		t.Errorf("Check after a repair: %+v, %v", problems, err)
	}
	if err := restarted.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if left := leases(t, filepath.Join(s.opts.Root, "ipam", "typical")); len(left) != 0 {
		t.Errorf("addresses stay: %v", left)
	}
}

func TestAddressesThatNoRecordKnowsAreFree(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	attach(t, s, pod("", "kept"))
	dir := filepath.Join(s.dir, "ipam", builtinName)
	writeFile(t, filepath.Join(dir, "10.88.0.9"), "lost\r\neth0")
	open(t, s.opts)
	if left := leases(t, dir); len(left) != 1 || filepath.Base(left[0]) == "10.88.0.9" {
		t.Errorf("addresses: %v", left)
	}
}
