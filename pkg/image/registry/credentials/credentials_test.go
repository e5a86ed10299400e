package credentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/test/testutil"
)

func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pair(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// helper puts a credential helper into PATH.
func helper(t testing.TB, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestTheMostSpecificEntryCounts(t *testing.T) {
	f := Files{file(t, fmt.Sprintf(`{"auths": {
		"r.example": {"auth": %q}, "r.example/team": {"auth": %q}, "r.example/team/app": {"auth": %q},
		"https://index.docker.io/v1/": {"auth": %q}, "https://old.example/v1/": {"username": "f", "password": "6"},
		"token.example": {"auth": %q, "identitytoken": "seven"}, "empty.example": {}
	}}`, pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("d", "4:5"), pair("<token>", "x")))}
	for _, c := range []struct {
		host, repository string
		want             Credential
	}{
		{"r.example", "team/app", Credential{Username: "c", Password: "3"}},
		{"r.example", "team/app/more", Credential{Username: "c", Password: "3"}},
		{"r.example", "team/application", Credential{Username: "b", Password: "2"}},
		{"r.example", "teams", Credential{Username: "a", Password: "1"}},
		{"R.example", "other", Credential{Username: "a", Password: "1"}},
		{"r.example:5000", "team/app", Credential{}},
		{"registry-1.docker.io", "library/busybox", Credential{Username: "d", Password: "4:5"}},
		{"docker.io", "library/busybox", Credential{Username: "d", Password: "4:5"}},
		{"old.example", "x", Credential{Username: "f", Password: "6"}},
		{"empty.example", "x", Credential{}},
		{"none.example", "x", Credential{}},
	} {
		got, err := f.Find(t.Context(), c.host, c.repository, nil)
		type plain Credential // without its String
		if d := cmp.Diff(plain(c.want), plain(got)); err != nil || d != "" {
			t.Errorf("%s/%s: %v %s", c.host, c.repository, err, d)
		}
	}
	if got, err := f.Find(t.Context(), "token.example", "x", nil); err != nil || got.IdentityToken != "x" || got.Username != "" {
		t.Errorf("identity token: %v", err)
	}
}

func TestTheFirstFileThatKnowsCounts(t *testing.T) {
	one := file(t, fmt.Sprintf(`{"auths": {"a.example": {"auth": %q}}}`, pair("one", "1")))
	two := file(t, fmt.Sprintf(`{"auths": {"a.example/x": {"auth": %q}, "b.example": {"auth": %q}}}`, pair("two", "2"), pair("two", "2")))
	f := Files{"/nonexistent/auth.json", file(t, " \n"), one, two}
	for host, want := range map[string]string{"a.example": "one", "b.example": "two", "c.example": ""} {
		if got, err := f.Find(t.Context(), host, "x", nil); err != nil || got.Username != want {
			t.Errorf("%s: %s, %v", host, got.Username, err)
		}
	}
}

func TestDefaultsAreTheUsualPlaces(t *testing.T) {
	for _, name := range []string{"REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", "/home/x")
	run := fmt.Sprintf("/run/containers/%d/auth.json", os.Getuid())
	if d := cmp.Diff(Files{run, "/home/x/.config/containers/auth.json", "/home/x/.docker/config.json"}, Defaults()); d != "" {
		t.Error(d)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	t.Setenv("XDG_CONFIG_HOME", "/cfg")
	t.Setenv("DOCKER_CONFIG", "/docker")
	if d := cmp.Diff(Files{"/run/user/7/containers/auth.json", run, "/cfg/containers/auth.json", "/docker/config.json"}, Defaults()); d != "" {
		t.Error(d)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "/only.json")
	if d := cmp.Diff(Files{"/only.json"}, Defaults()); d != "" {
		t.Error(d)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("HOME", "") // as systemd has it
	t.Setenv("XDG_CONFIG_HOME", "")
	if got := Defaults(); !strings.HasSuffix(got[2], "/.config/containers/auth.json") || !filepath.IsAbs(got[2]) {
		t.Errorf("without HOME: %v", got)
	}
}

func TestABadFileIsNamedWithItsLineAndNoneOfItsText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{\n\"auths\": {\"a.example\": {\"auth\": \"hidden\"}\n", ":3: "},
		{"{\n\"auths\": {\"a.example\": \"hidden\"}}", ":2: "},
		{`{"auths": {"a.example": {"auth": "hidden!"}}}`, "auth of a.example is not base64"},
		{`{"auths": {"a.example": {"auth": "aGlkZGVu"}}}`, "auth of a.example is not username:password"},
		{`{"credHelpers": {"a.example": "../hidden/x"}}`, "credential helper"},
		{strings.Repeat(" ", maxFile+1), "longer than"},
	} {
		path := file(t, c.text)
		_, err := Files{path}.Find(t.Context(), "a.example", "x", nil)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "auths") {
			t.Errorf("%.60q: %v", c.text, err)
		}
		if !strings.HasPrefix(c.want, "credential helper") && (err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hidden")) {
			t.Errorf("%.60q: %v", c.text, err)
		}
	}
}

func TestHelpersAreAsked(t *testing.T) {
	helper(t, "user", `[ "$1" = get ] && echo "{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"$(cat)\"}"`)
	helper(t, "token", `echo '{"Username":"<token>","Secret":"identity"}'`)
	helper(t, "none", `echo credentials not found in native keychain; exit 1`)
	f := Files{file(t, fmt.Sprintf(`{"credHelpers": {"h.example": "user", "t.example": "token", "n.example": "none", "https://index.docker.io/v1/": "user"},
		"credsStore": "user", "auths": {"a.example": {"auth": %q}, "s.example": {}}}`, pair("file", "p")))}
	for _, c := range []struct{ host, user, password, token string }{
		{"h.example", "u", "h.example", ""},
		{"registry-1.docker.io", "u", "https://index.docker.io/v1/", ""},
		{"t.example", "", "", "identity"},
		{"n.example", "", "", ""},
		{"a.example", "file", "p", ""},
		{"s.example", "u", "s.example", ""},
	} {
		got, err := f.Find(t.Context(), c.host, "x", nil)
		if err != nil || got.Username != c.user || got.Password != c.password || got.IdentityToken != c.token {
			t.Errorf("%s: %#v, %v", c.host, got, err)
		}
	}
	got, err := Files{}.Find(t.Context(), "g.example", "x", []string{"none", AuthFiles, "token", "user"})
	if err != nil || got.IdentityToken != "identity" {
		t.Errorf("global helpers: %v", err)
	}
}

func TestWhatAHelperDoesWrongIsToldWithoutItsOutput(t *testing.T) {
	helper(t, "fails", `echo hidden; echo hidden >&2; exit 3`)
	helper(t, "talks", `echo hidden`)
	helper(t, "floods", `yes hidden`)
	for name, want := range map[string]string{
		"fails": "exit status 3", "talks": "its answer is not in the form", "floods": "docker-credential-floods", "absent": "not installed",
		"a/b": "credential helper", "-x": "credential helper", "": "credential helper", strings.Repeat("x", 65): "credential helper",
	} {
		_, err := Files{}.Find(t.Context(), "a.example", "x", []string{name})
		if err == nil || errs.Of(err) == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAHelperThatHangsIsKilledWithWhatItHasStarted(t *testing.T) {
	dir := t.TempDir()
	helper(t, "hangs", "sleep 1000 & echo $! >"+dir+"/pid; wait")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := Files{}.Find(ctx, "a.example", "x", []string{"hangs"})
	if !errors.Is(err, errs.Timeout) {
		t.Errorf("got %v", err)
	}
	testutil.Ends(t, dir+"/pid", 5*time.Second)
}

func TestCredentialsShowNothing(t *testing.T) {
	c := Credential{Username: "u", Password: "hidden", IdentityToken: "hidden"}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, &c, c.MarshalLog()); strings.Contains(s, "hidden") {
		t.Error(s)
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths": {"a.example/b": {"auth": "YTpi", "identitytoken": "x"}}}`), "a.example", "b/c")
	f.Add([]byte(`{"auths": {"https://a.example/v1/": {"username": "x"}}}`), "a.example", "b")
	f.Fuzz(func(t *testing.T, data []byte, host, repository string) {
		if strings.Contains(strings.ToLower(string(data)), "cred") {
			return // no helper is run
		}
		if _, err := (Files{file(t, string(data))}).Find(t.Context(), host, repository, nil); err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%v has no kind", err)
		}
	})
}
