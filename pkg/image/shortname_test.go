package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

func TestAShortNameIsFoundInTheFirstRegistryThatHasIt(t *testing.T) {
	one, two := serve(t, nil), serve(t, nil)
	b := build(t, sample("short"))
	ref := two.Put("app", "latest", b)
	conf := filepath.Join(t.TempDir(), "registries.conf")
	write := func(text string) {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := service(t)
	s.SetDownloads(registry.Options{MaxRetries: -1, Hosts: hosts.Options{RegistriesConf: []string{conf}}}, 1)
	search := fmt.Sprintf("unqualified-search-registries = [%q, %q]\n", one.Host, two.Host)

	write(search + "short-name-mode = \"enforcing\"\n")
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: "app"}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "enforcing") {
		t.Errorf("an ambiguous name: %v", err)
	}
	write("[broken\n")
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "registries.conf:1:") {
		t.Errorf("a bad file: %v", err)
	}
	nothing(t, s)

	write(search)
	got, err := s.Pull(t.Context(), image.PullRequest{Ref: "app"})
	if err != nil || got.ID != b.Config || got.RepoTags[0] != ref {
		t.Fatalf("got %v, %v", got, err)
	}
	if i, err := s.Get("app"); err != nil || i.ID != b.Config {
		t.Errorf("the short name is not found: %v", err)
	}
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: "other"}); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), one.Host) || !strings.Contains(err.Error(), two.Host) {
		t.Errorf("absent from both: %v", err)
	}
	if err := s.Untag(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	nothing(t, s)
}
