package e2e

import (
	"strings"
	"testing"

	"github.com/berth-run/berth/test/registry"
)

func TestImagesFromPullToRmi(t *testing.T) {
	s := startRegistry(t, &registry.Registry{Username: "ada", Password: "secret"})
	b := shipped(t)
	ref := s.Put("team/app", "v1", b)
	if got := try(t, "", "pull", ref); got.code != 1 || !strings.Contains(got.stderr, "credentials") {
		t.Errorf("nobody's pull: %v", got)
	}
	if got := try(t, "secret\n", "pull", "-u", "ada", "--password-stdin", ref); got.code != 0 || got.stdout != b.Config.String()+"\n" {
		t.Errorf("pull: %v", got)
	}
	if got := try(t, "", "pull", "-u", "ada:secret", ref); got.code != 0 {
		t.Errorf("pull again: %v", got)
	}
	const alias = "e2e.local/alias:2"
	command(t, "tag", ref, alias)
	out := command(t, "images", "--digests")
	for _, want := range []string{"REPOSITORY", s.Host + "/team/app", "v1", "e2e.local/alias", b.Config.Encoded()[:12], b.Root.Digest.String()} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	name := named(t)
	background(t, name, alias, "sleep", "1000")
	if out := command(t, "rmi", ref); !strings.Contains(out, "Untagged: "+ref) || strings.Contains(out, "Deleted") {
		t.Errorf("one name: %q", out)
	}
	if got := try(t, "", "rmi", alias); got.code != 1 || !strings.Contains(got.stderr, "use") {
		t.Errorf("in use: %v", got)
	}
	command(t, "rm", "-f", name)
	if out := command(t, "rmi", alias); !strings.Contains(out, "Deleted: "+b.Config.String()) {
		t.Errorf("the last name: %q", out)
	}
	if strings.Contains(command(t, "images"), "alias") {
		t.Error("it is still listed")
	}
	if got := try(t, "", "rmi", alias); got.code != 1 {
		t.Errorf("again: %v", got)
	}
}
