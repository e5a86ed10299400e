package resolv

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPodsGetServersThatTheyCanReach(t *testing.T) {
	const upstream = "nameserver 10.0.0.1\nsearch up\n"
	for name, c := range map[string]struct{ node, upstream, want string }{
		"reachable":             {"# c\nnameserver 192.0.2.1\noptions edns0\n", upstream, "# c\nnameserver 192.0.2.1\noptions edns0\n"},
		"resolved's stub":       {"nameserver 127.0.0.53\noptions edns0\nsearch a\n", upstream, upstream},
		"every form":            {"nameserver 127.0.0.1\nnameserver ::1\nnameserver\t0.0.0.0\nnameserver ::ffff:127.0.0.1", upstream, upstream},
		"some loopback":         {"nameserver 127.0.0.1\nnameserver fd00::1\n", upstream, "nameserver fd00::1\n"},
		"loopback and no other": {"nameserver 127.0.0.1\nsearch a\n", "", "search a\n"},
		"loopback everywhere":   {"nameserver 127.0.0.1\nsearch a\n", "nameserver 127.0.0.2\n", "search a\n"},
		"no server":             {"search a\n", upstream, "search a\n"},
		"not an address":        {"nameserver host\n", upstream, "nameserver host\n"},
		"no file":               {"", upstream, ""},
	} {
		dir := t.TempDir()
		for file, content := range map[string]string{"node": c.node, "upstream": c.upstream} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := forPod(filepath.Join(dir, "node"), filepath.Join(dir, "upstream"))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
