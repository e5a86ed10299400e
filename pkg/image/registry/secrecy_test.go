package registry_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

const (
	user     = "robot-name"
	password = "not for a mirror"
)

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// shows reports whether a request has anything of a secret in it.
func shows(r *http.Request, secret string) bool {
	text := r.URL.String() + fmt.Sprint(r.Header)
	for _, v := range r.Header["Authorization"] {
		_, value, _ := strings.Cut(v, " ")
		data, _ := base64.StdEncoding.DecodeString(value) // not all are
		text += string(data)
	}
	return strings.Contains(text, secret)
}

func TestCredentialsOfARequestGoToNoMirror(t *testing.T) {
	b := built(t)
	var got seen
	upstream := serve(t, &testregistry.Registry{Username: user, Password: password})
	mirror := serve(t, &testregistry.Registry{Username: "other", Password: "other", Hook: got.hook})
	ref := upstream.Put("team/app", "v1", b)
	mirror.Put("team/app", "v1", b)
	for _, kind := range []string{"hosts.toml", "registries.conf"} {
		for _, auth := range []registry.Auth{
			{Username: user, Password: password}, {Auth: basic(user, password)}, {Username: user, Password: password, ServerAddress: "https://" + upstream.Host + "/v2/"},
		} {
			n := newNode(t)
			if kind == "hosts.toml" {
				n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("[host.\"http://%s\"]\n", mirror.Host))
			} else {
				n.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", upstream.Host, mirror.Host))
			}
			before := len(got.requests())
			if _, err := n.pull(ref, auth); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			if len(got.requests()) == before {
				t.Errorf("%s: the mirror was not asked", kind)
			}
		}
	}
	for _, r := range got.requests() {
		if len(r.Header["Authorization"]) > 0 || shows(r, password) {
			t.Errorf("the mirror got %v", r.Header)
		}
	}
}

func TestCredentialsGoToAMirrorThatAFileHasThemFor(t *testing.T) {
	b := built(t)
	upstream, mirror := serve(t, nil), serve(t, &testregistry.Registry{Username: user, Password: password})
	mirror.Put("cache/team/app", "v1", b)
	for name, auths := range map[string]string{
		"host": fmt.Sprintf(`{%q: {"auth": %q}}`, mirror.Host, basic(user, password)),
		"path": fmt.Sprintf(`{%q: {"auth": %q}, %q: {"auth": %q}}`, mirror.Host, basic("wrong", "wrong"), mirror.Host+"/cache/team", basic(user, password)),
	} {
		n := newNode(t)
		n.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = \"%s/cache\"\n", upstream.Host, mirror.Host))
		n.write("auth.json", `{"auths": `+auths+`}`)
		if desc, err := n.pull(upstream.Host+"/team/app:v1", registry.Auth{Username: "for", Password: "upstream"}); err != nil || desc.Digest != b.Root.Digest {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := newNode(t)
	n.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = \"%s/cache\"\n", upstream.Host, mirror.Host))
	if _, err := n.pull(upstream.Host+"/team/app:v1", registry.Auth{Username: user, Password: password, ServerAddress: mirror.Host}); err != nil {
		t.Errorf("a request that names the mirror: %v", err)
	}
}

func TestARequestsCredentialsAreForTheServerOfItsRegistry(t *testing.T) {
	b := built(t)
	server := serve(t, &testregistry.Registry{Username: user, Password: password})
	server.Put("team/app", "v1", b)
	n := newNode(t)
	n.write("certs.d/registry.invalid/hosts.toml", fmt.Sprintf("server = \"http://%s\"\n", server.Host))
	if _, err := n.pull("registry.invalid/team/app:v1", registry.Auth{Username: user, Password: password}); err != nil {
		t.Error(err)
	}
	n = newNode(t)
	n.write("certs.d/_default/hosts.toml", fmt.Sprintf("server = \"http://%s\"\n", server.Host))
	if _, err := n.pull("registry.invalid/team/app:v1", registry.Auth{Username: user, Password: password}); !errors.Is(err, errs.Denied) {
		t.Errorf("a default server got them: %v", err)
	}
}

func TestTheNodesFilesAreLookedAtWhereARequestBringsNothing(t *testing.T) {
	b := built(t)
	for _, token := range []bool{false, true} {
		upstream := serve(t, &testregistry.Registry{Username: user, Password: password, Token: token})
		ref := upstream.Put("team/app", "v1", b)
		n := newNode(t)
		if _, err := n.pull(ref, registry.Auth{}); !errors.Is(err, errs.Denied) {
			t.Errorf("nothing: %v", err)
		}
		n.write("auth.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, upstream.Host+"/team", basic(user, password)))
		if _, err := n.pull(ref, registry.Auth{}); err != nil {
			t.Error(err)
		}
		if _, err := n.pull(ref, registry.Auth{Username: "other", Password: "wrong"}); !errors.Is(err, errs.Denied) {
			t.Errorf("the request's own count: %v", err)
		}
		n.write("auth.json", "{\n\"auths\": []}")
		if _, err := n.pull(ref, registry.Auth{}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "auth.json:2:") {
			t.Errorf("a bad file: %v", err)
		}
		if _, err := n.pull(ref, registry.Auth{Username: user, Password: password}); err != nil {
			t.Errorf("a bad file, not needed: %v", err)
		}
	}
}

func TestNothingSecretFollowsARedirect(t *testing.T) {
	b := built(t)
	var got seen
	target := serve(t, &testregistry.Registry{Hook: got.hook})
	target.Put("team/app", "v1", b)
	for _, token := range []bool{false, true} {
		upstream := &testregistry.Registry{Username: user, Password: password, Token: token}
		upstream.Hook = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Authorization") != "" {
				http.Redirect(w, r, "http://"+target.Host+r.URL.Path+"?signature=1", http.StatusTemporaryRedirect)
				return true
			}
			return false
		}
		s := serve(t, upstream)
		ref := s.Put("team/app", "v1", b)
		n := newNode(t)
		n.write("certs.d/"+s.Host+"/hosts.toml", fmt.Sprintf("server = \"http://%s\"\n[header]\nx-key = \"secret key\"\n", s.Host))
		if _, err := n.pull(ref, registry.Auth{Username: user, Password: password}); err != nil {
			t.Fatal(err)
		}
	}
	if len(got.requests()) == 0 {
		t.Error("nothing was redirected")
	}
	for _, r := range got.requests() {
		if len(r.Header["Authorization"]) > 0 || len(r.Header["X-Key"]) > 0 || shows(r, password) {
			t.Errorf("the target of a redirect got %v", r.Header)
		}
	}
}

func TestATokenServerOnAnotherHostMustSpeakTLS(t *testing.T) {
	var got seen
	other := serve(t, &testregistry.Registry{Token: true, Hook: got.hook})
	realm := "http://" + strings.Replace(other.Host, "127.0.0.1", "localhost", 1) + "/token"
	upstream := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=\"test\"", realm))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}})
	for _, auth := range []registry.Auth{{Username: user, Password: password}, {IdentityToken: password}, {}} {
		_, err := newNode(t).pull(upstream.Host+"/team/app:v1", auth)
		if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "without TLS") {
			t.Errorf("got %v", err)
		}
	}
	if n := len(got.requests()); n > 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// catchLog returns what is logged at any level from now on.
func catchLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(flags)
	_ = flags.Parse([]string{"-v=10", "-logtostderr=false"}) // they are known
	klog.SetOutput(&log)
	t.Cleanup(func() {
		klog.SetOutput(nil)
		_ = flags.Parse([]string{"-v=0", "-logtostderr=true"})
	})
	return &log
}

// parrot is a registry that sends back what it gets: as an answer of a status, or,
// above 1000, only after it has given a token.
type parrot struct {
	status int
	pad    int // bytes before what it sends back
}

func (p *parrot) hook(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/token" && p.status > 1000:
		return false
	case r.URL.Path == "/token":
		p.answer(w, r, p.status)
	case r.Header.Get("Authorization") == "":
		how := "Basic realm=\"x\""
		if p.status != http.StatusForbidden {
			how = fmt.Sprintf("Bearer realm=\"http://%s/token\",service=\"test\"", r.Host)
		}
		w.Header().Set("WWW-Authenticate", how)
		w.WriteHeader(http.StatusUnauthorized)
	case p.status == 1302:
		http.Redirect(w, r, "http://127.0.0.1:1/x?signature=hidden&password="+r.Header.Get("Authorization"), http.StatusFound)
	default:
		p.answer(w, r, p.status%1000)
	}
	return true
}

func (p *parrot) answer(w http.ResponseWriter, r *http.Request, status int) {
	data, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")) // not all are
	_ = r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, strings.Repeat("x", p.pad)+fmt.Sprint(string(data), r.Header, r.Form, r.URL))
}

func TestNoSecretReachesALogOrAnError(t *testing.T) {
	log := catchLog(t)
	p := &parrot{}
	upstream := serve(t, &testregistry.Registry{Token: true, Username: user, Password: password, RefreshToken: password, Hook: p.hook})
	secret := []string{password, basic(user, password), "secret key", "hidden", testregistry.BearerToken, "not+for+a+mirror", "not%20for%20a%20mirror"}
	for _, auth := range []registry.Auth{
		{}, {Username: user, Password: password}, {Auth: basic(user, password)}, {IdentityToken: password}, {RegistryToken: password},
	} {
		for _, p.status = range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest, 1403, 1302} {
			n := newNode(t)
			n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%[1]s/again\"]\n[host.\"http://%[1]s/again\".header]\nx-key = \"secret key\"\n", upstream.Host))
			n.write("auth.json", fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, upstream.Host, basic(user, password)))
			_, err := n.pull(upstream.Host+"/team/app:v1", auth)
			if err == nil {
				t.Fatalf("status %d: no error", p.status)
			}
			klog.FromContext(t.Context()).Error(err, "Pull failed", "auth", auth)
			text := fmt.Sprintf("%v %+v %#v %v %+v %#v", err, err, err, auth, auth, auth)
			for _, s := range secret {
				if strings.Contains(text, s) {
					t.Errorf("status %d: %q is in %s", p.status, s, text)
				}
			}
		}
	}
	klog.Flush()
	if !strings.Contains(log.String(), "Pull failed") {
		t.Error("the log was not caught")
	}
	for _, s := range secret {
		if strings.Contains(log.String(), s) {
			t.Errorf("%q is in the log:\n%s", s, log.String())
		}
	}
}

func TestACutErrorHasNoHalfOfASecret(t *testing.T) {
	p := &parrot{status: http.StatusForbidden}
	upstream := serve(t, &testregistry.Registry{Hook: p.hook})
	for p.pad = 400; p.pad < 640; p.pad++ {
		_, err := newNode(t).pull(upstream.Host+"/team/app:v1", registry.Auth{Username: user, Password: password})
		if err == nil || strings.Contains(err.Error(), password[:5]) || strings.Contains(err.Error(), basic(user, password)[:5]) {
			t.Fatalf("%d bytes before it: %v", p.pad, err)
		}
	}
}
