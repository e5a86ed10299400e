package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/test/registry"
)

func TestRunPullsAsAsked(t *testing.T) {
	s := startRegistry(t, &registry.Registry{})
	ref := s.Put("team/moving", "v1", shipped(t))
	old := command(t, "run", "--rm", "-q", ref, "cat", "/mark")
	s.Put("team/moving", "v1", shipped(t))
	if got := try(t, "", "run", "--rm", "-q", ref, "cat", "/mark"); got.stdout != old {
		t.Errorf("--pull missing: %v, want %q", got, old)
	}
	if got := try(t, "", "run", "--rm", "-q", "--pull", "always", ref, "cat", "/mark"); got.code != 0 || got.stdout == old || got.stdout == "" {
		t.Errorf("--pull always: %v, was %q", got, old)
	}
	command(t, "rmi", ref)
	if got := try(t, "", "run", "--rm", "--pull", "never", ref, "true"); got.code != 125 || !strings.Contains(got.stderr, ref) {
		t.Errorf("--pull never: %v", got)
	}
}

func TestRunPublishesRangesDatagramsAndAddresses(t *testing.T) {
	name := named(t)
	background(t, name, "-p", "18340-18341:80-81", "-p", "127.0.0.1:18342:80", "-p", "18343:53/udp", busybox, "/bin/sh", "-c",
		"mkdir /a /b; echo a > /a/index.html; echo b > /b/index.html; httpd -p [::]:80 -h /a; httpd -p [::]:81 -h /b; exec sleep 1000")
	echo(t, &pod{t: t, id: podListed(t, name).ID}, ":53")
	for address, want := range map[string]string{"127.0.0.1:18340": "a", "127.0.0.1:18341": "b", "127.0.0.1:18342": "a"} {
		wantAnswer(t, address, want)
	}
	eventually(t, func() error { return askUDP("127.0.0.1:18343", "udp") })
	gateway := strings.Fields(command(t, "exec", name, "/bin/sh", "-c", "ip route | grep default"))[2]
	if got, err := ask(gateway + ":18342"); err == nil {
		t.Errorf("a port of the loopback interface answers %q elsewhere", got)
	}
}

func TestRunTakesWhatIsHere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sub", "file"), "relative\n")
	c := berth.Command(t.Context(), "run", "--rm", "-v", "./sub:/data", busybox, "cat", "/data/file")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil || string(out) != "relative\n" {
		t.Errorf("a relative volume: %q, %v", out, err)
	}
	write(t, filepath.Join(dir, "env"), "GOOD=1\n=bad\n")
	if got := try(t, "", "run", "--rm", "--env-file", filepath.Join(dir, "env"), busybox, "true"); got.code != 125 || !strings.Contains(got.stderr, "/env: ") || !strings.Contains(got.stderr, `"=bad"`) {
		t.Errorf("a bad file of variables: %v", got)
	}
	if got := try(t, "", "run", "--rm", "--env-file", filepath.Join(dir, "none"), busybox, "true"); got.code != 125 || !strings.Contains(got.stderr, "/none") {
		t.Errorf("a missing one: %v", got)
	}
	const mayMount = "mkdir /m; mount -t tmpfs none /m 2>/dev/null && echo yes || echo no"
	for want, flags := range map[string][]string{"no\n": {"run", "--rm"}, "yes\n": {"run", "--rm", "--privileged"}} {
		if got := try(t, "", append(flags, busybox, "/bin/sh", "-c", mayMount)...); got.stdout != want {
			t.Errorf("%v: %v", flags, got)
		}
	}
}

func TestImagesAreRemovedByIDAndByForce(t *testing.T) {
	s := startRegistry(t, &registry.Registry{})
	b := shipped(t)
	ref := s.Put("team/gone", "v1", b)
	short := b.Config.Encoded()[:12]
	command(t, "pull", "-q", ref)
	if out := command(t, "images", s.Host+"/team/gone"); strings.Count(out, "\n") != 2 || !strings.Contains(out, short) {
		t.Errorf("images of one repository: %s", out)
	}
	if out := command(t, "rmi", short); !strings.Contains(out, "Deleted: "+b.Config.String()) {
		t.Errorf("rmi of a short id: %q", out)
	}
	command(t, "pull", "-q", ref)
	command(t, "tag", ref, "e2e.local/second:1")
	name := named(t)
	background(t, name, ref, "sleep", "1000")
	if got := try(t, "", "rmi", short); got.code != 1 || !strings.Contains(got.stderr, "-f") {
		t.Errorf("rmi of several names: %v", got)
	}
	if out := command(t, "rmi", "-f", short); !strings.Contains(out, "Untagged: e2e.local/second:1") {
		t.Errorf("rmi -f: %q", out)
	}
	if out := command(t, "exec", name, "cat", "/mark"); !strings.HasPrefix(out, "mark ") {
		t.Errorf("its container has lost its files: %q", out)
	}
}

func TestCheckFindsAndMendsADamagedRecord(t *testing.T) {
	s := startRegistry(t, &registry.Registry{})
	b := shipped(t)
	command(t, "pull", "-q", s.Put("team/torn", "v1", b))
	withoutDaemon(t, berth.StopDaemon, func() {
		torn := 0
		err := filepath.WalkDir(filepath.Join(berth.Dir, "data", "images"), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".json" {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil && bytes.Contains(data, []byte(b.Config.Encoded())) {
				torn++
				err = os.WriteFile(path, data[:len(data)/2], 0o600)
			}
			return err
		})
		if err != nil || torn == 0 {
			t.Errorf("%d records, %v", torn, err)
		}
	})
	got := try(t, "", "check", "-o", "json")
	var found []struct {
		Store, What string
		Repaired    bool
	}
	if decode(t, got.stdout, &found); got.code != 1 || len(found) == 0 || found[0].Store != "image" || found[0].Repaired || !strings.Contains(got.stderr, "check --repair") {
		t.Errorf("check: %v", got)
	}
	if got := try(t, "", "check", "--repair"); got.code != 0 || !strings.Contains(got.stdout, "yes") {
		t.Errorf("check --repair: %v", got)
	}
	if out := command(t, "check"); out != "Everything fits together.\n" {
		t.Errorf("after the repair: %q", out)
	}
}

func TestListsAreGivenAsJSON(t *testing.T) {
	name := named(t)
	background(t, name, busybox, "sleep", "1000")
	for _, verb := range []string{"ps", "pods", "images", "info", "check"} {
		var list []map[string]any
		out := command(t, verb, "-o", "json")
		if decode(t, out, &list); len(list) == 0 && verb != "check" {
			t.Errorf("%s: %s", verb, out)
		}
		want := map[string]string{"ps": name, "pods": name, "images": busybox, "info": "berthd"}[verb]
		if err := wantText(fmt.Sprint(list), want); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
}
