package hosts

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// write puts files below a new directory, and returns it.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func name(t testing.TB, s string) reference.Name {
	t.Helper()
	n, err := reference.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// short writes endpoints as text: URL, capabilities, and what is special.
func short(list []Endpoint) []string {
	var text []string
	for _, e := range list {
		s := e.String()
		for n, c := range []Capability{Pull, Resolve, Push} {
			if e.Can&c == 0 {
				s += []string{" -pull", " -resolve", " -push"}[n]
			}
		}
		if e.Namespace != "" {
			s += " ns=" + e.Namespace
		}
		if e.TLS.SkipVerify != nil && *e.TLS.SkipVerify {
			s += " unverified"
		}
		if e.Fallback {
			s += " fallback"
		}
		if e.Registry != "" {
			s += " own"
		}
		text = append(text, s)
	}
	return text
}

func TestHostsTomlSaysWhichServersAreAsked(t *testing.T) {
	digested := "@sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct {
		name, dir, text, ref string
		want                 []string
	}{
		{"nothing", "other", "", "quay.io/a/b:1", []string{"https://quay.io/v2/a/b own"}},
		{"nothing for Docker's", "other", "", "busybox", []string{"https://registry-1.docker.io/v2/library/busybox own"}},
		{"empty file", "quay.io", "", "quay.io/a/b:1", []string{"https://quay.io/v2/a/b own"}},
		{
			"mirrors in their order", "docker.io", "server = \"https://registry-1.docker.io\"\n[host.\"https://z.example\"]\n[host.\"http://a.example:5000\"]\n",
			"busybox",
			[]string{
				"https://z.example/v2/library/busybox ns=docker.io", "http://a.example:5000/v2/library/busybox ns=docker.io",
				"https://registry-1.docker.io/v2/library/busybox own",
			},
		},
		{
			"capabilities", "docker.io", "[host.\"z.example\"]\ncapabilities = [\"Pull\"]\n[host.\"https://y.example\".header]\nx = \"y\"\n", "busybox",
			[]string{
				"https://z.example/v2/library/busybox -resolve -push ns=docker.io", "https://y.example/v2/library/busybox ns=docker.io",
				"https://registry-1.docker.io/v2/library/busybox own",
			},
		},
		{"a table in two parts is one host", "quay.io", "[host.\"https://z.example\"]\n[host.\"https://y.example\"]\n[host.\"https://z.example\".header]\nx = \"y\"\n", "quay.io/a/b:1", []string{"https://z.example/v2/a/b ns=quay.io", "https://y.example/v2/a/b ns=quay.io", "https://quay.io/v2/a/b own"}},
		{"path", "quay.io", "server = \"https://harbor.example/proxy/\"\n", "quay.io/a/b:1", []string{"https://harbor.example/proxy/v2/a/b ns=quay.io own"}},
		{"path with version", "quay.io", "server = \"https://harbor.example/v2\"\n", "quay.io/a/b:1", []string{"https://harbor.example/v2/a/b ns=quay.io own"}},
		{"path as it is", "quay.io", "[host.\"https://harbor.example/v2/proxy\"]\noverride_path = true\n", "quay.io/a/b:1", []string{"https://harbor.example/v2/proxy/a/b ns=quay.io", "https://quay.io/v2/a/b own"}},
		{"port with underscores", "r.example_5000_", "[host.\"https://z.example\"]\n", "r.example:5000/a:1", []string{"https://z.example/v2/a ns=r.example:5000", "https://r.example:5000/v2/a own"}},
		{"port with a colon", "r.example:5000", "[host.\"https://z.example\"]\n", "r.example:5000/a:1", []string{"https://z.example/v2/a ns=r.example:5000", "https://r.example:5000/v2/a own"}},
		{"another port", "r.example_5001_", "[host.\"https://z.example\"]\n", "r.example:5000/a:1", []string{"https://r.example:5000/v2/a own"}},
		{"default", "_default", "[host.\"https://z.example\"]\n", "r.example/a" + digested, []string{"https://z.example/v2/a ns=r.example", "https://r.example/v2/a own"}},
		{"a default server is no registry's own", "_default", "server = \"https://z.example\"\n", "r.example/a:1", []string{"https://z.example/v2/a ns=r.example"}},
		{"server alone", "r.example", "server = \"https://z.example\"\n", "r.example/a:1", []string{"https://z.example/v2/a ns=r.example own"}},
		{"unverified", "r.example", "server = \"https://r.example\"\nskip_verify = true\n", "r.example/a:1", []string{"https://r.example/v2/a unverified own"}},
		{"TLS said of plain HTTP is tried first", "r.example", "server = \"http://r.example:5000\"\nskip_verify = true\n", "r.example/a:1", []string{"https://r.example:5000/v2/a ns=r.example unverified own", "http://r.example:5000/v2/a ns=r.example unverified fallback own"}},
		{"Docker's by its name", "docker.io", "server = \"https://docker.io\"\n", "busybox", []string{"https://registry-1.docker.io/v2/library/busybox own"}},
		{"loopback", "other", "", "localhost:5000/a:1", []string{"https://localhost:5000/v2/a unverified own", "http://localhost:5000/v2/a unverified fallback own"}},
		{"loopback without TLS", "other", "", "127.0.0.1:80/a:1", []string{"http://127.0.0.1:80/v2/a own"}},
		{"loopback with TLS", "other", "", "[::1]:443/a:1", []string{"https://[::1]:443/v2/a own"}},
		{"plain by configuration", "other", "", "plain.example:5000/a:1", []string{"http://plain.example:5000/v2/a own"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := write(t, map[string]string{c.dir + "/hosts.toml": c.text})
			f := New(Options{CertsDirs: []string{filepath.Join(root, "absent"), root}, PlainHTTP: []string{"plain.example:5000"}})
			got, err := f.Endpoints(name(t, c.ref))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, short(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHostsTomlSaysHowAServerIsSpokenTo(t *testing.T) {
	root := write(t, map[string]string{"quay.io/hosts.toml": `
ca = "own.crt"
client = "own.pem"
header = {x-own = "1"}
[host."https://a.example"]
ca = ["one.crt", "/etc/two.crt"]
client = [["c.cert", "c.key"], ["/d.cert", "/d.key"]]
dial_timeout = "3s"
[host."https://a.example".header]
x-one = "1"
x-two = ["2", "3"]
[host."https://b.example"]
client = ["one.pem", "two.pem"]
unknown = "is ignored"
`})
	f := New(Options{CertsDirs: []string{root}})
	got, err := f.Endpoints(name(t, "quay.io/a/b:1"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(p string) string { return filepath.Join(root, "quay.io", p) }
	file := in("hosts.toml")
	want := []Endpoint{
		{
			Scheme: "https", Host: "a.example", Root: "/v2", Repository: "a/b", Namespace: "quay.io", Can: all, Source: file, DialTimeout: 3 * time.Second,
			TLS:    TLS{CA: []string{in("one.crt"), "/etc/two.crt"}, Clients: []KeyPair{{in("c.cert"), in("c.key")}, {"/d.cert", "/d.key"}}},
			Header: http.Header{"X-One": {"1"}, "X-Two": {"2", "3"}},
		},
		{
			Scheme: "https", Host: "b.example", Root: "/v2", Repository: "a/b", Namespace: "quay.io", Can: all, Source: file,
			TLS: TLS{Clients: []KeyPair{{Cert: in("one.pem")}, {Cert: in("two.pem")}}},
		},
		{
			Scheme: "https", Host: "quay.io", Root: "/v2", Repository: "a/b", Can: all, Source: file, Registry: "quay.io",
			TLS: TLS{CA: []string{in("own.crt")}, Clients: []KeyPair{{Cert: in("own.pem")}}}, Header: http.Header{"X-Own": {"1"}},
		},
	}
	type plain Endpoint // without its String
	var a, b []plain
	for _, e := range got {
		a = append(a, plain(e))
	}
	for _, e := range want {
		b = append(b, plain(e))
	}
	if d := cmp.Diff(b, a); d != "" {
		t.Error(d)
	}
}

func TestFilesInAHostsDirectoryAreItsCertificates(t *testing.T) {
	root := write(t, map[string]string{
		"r.example:5000/ca.crt": "", "r.example:5000/client.cert": "", "r.example:5000/client.key": "", "r.example:5000/both.cert": "",
	})
	got, err := New(Options{CertsDirs: []string{root}}).Endpoints(name(t, "r.example:5000/a:1"))
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	in := func(p string) string { return filepath.Join(root, "r.example:5000", p) }
	want := TLS{CA: []string{in("ca.crt")}, Clients: []KeyPair{{Cert: in("both.cert")}, {in("client.cert"), in("client.key")}}}
	if d := cmp.Diff(want, got[0].TLS); d != "" {
		t.Error(d)
	}
}

func TestTheFirstDirectoryOfAHostCounts(t *testing.T) {
	one := write(t, map[string]string{"_default/hosts.toml": "server = \"https://one.example\"\n"})
	two := write(t, map[string]string{"quay.io/hosts.toml": "server = \"https://two.example\"\n"})
	got, err := New(Options{CertsDirs: []string{one, two}}).Endpoints(name(t, "quay.io/a:1"))
	if err != nil || len(got) != 1 || got[0].Host != "one.example" { // as containerd has it
		t.Errorf("got %v, %v", got, err)
	}
}

func TestABadHostsTomlNamesFileAndLineAndConcernsItsHostAlone(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"server = \n", ":1: "},
		{"\n\n[host.\"https://a.example\"]\ncapabilities = \"pull\"\n", ":4: "},
		{"\n[host.\"https://a.example\"]\ncapabilities = [\"pull\", \"fly\"]\n", ":3: capabilities: \"fly\""},
		{"\n[host.\"ftp://a.example\"]\n", ":2: server: scheme"},
		{"\n[host.\"https://user:hidden@a.example\"]\n", ":2: server: URL of a.example has more"},
		{"\n[host.\"\"]\n", ":2: a host without a URL"},
		{"server = \"https:///v2\"\n", ":1: server: URL has no host"},
		{"\nca = 7\n", ":2: ca: "},
		{"\nclient = [[\"a\"]]\n", ":2: client: "},
		{"\ndial_timeout = \"soon\"\n", ":2: dial_timeout: "},
		{"\n[header]\nx = 7\n", ":2: header: \"x\""},
		{"\n[header]\n\"a b\" = \"hidden\"\n", ":2: header: \"a b\""},
		{"\n[header]\na = \"hidden\\nX: y\"\n", ":2: header: \"a\""},
		{"# " + strings.Repeat("x", maxFile), "longer than"},
	} {
		root := write(t, map[string]string{"bad.example/hosts.toml": c.text})
		f := New(Options{CertsDirs: []string{root}})
		_, err := f.Endpoints(name(t, "bad.example/a:1"))
		if err == nil || !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), filepath.Join(root, "bad.example/hosts.toml")) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.text, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: the error shows a secret: %v", c.text, err)
		}
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: Check: %v", c.text, err)
		}
		if _, err := f.Endpoints(name(t, "good.example/a:1")); err != nil {
			t.Errorf("%q: another host: %v", c.text, err)
		}
	}
}

func TestAChangedHostsTomlCountsAtOnce(t *testing.T) {
	root := write(t, map[string]string{"quay.io/hosts.toml": "server = \n"})
	f := New(Options{CertsDirs: []string{root}})
	if _, err := f.Endpoints(name(t, "quay.io/a:1")); err == nil {
		t.Fatal("a bad file was taken")
	}
	if err := os.WriteFile(filepath.Join(root, "quay.io/hosts.toml"), []byte("server = \"https://new.example\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Endpoints(name(t, "quay.io/a:1")); err != nil || got[0].Host != "new.example" {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzHostsToml(f *testing.F) {
	for _, s := range []string{
		"server = \"https://a.example\"\n[host.\"http://b.example/v2\"]\noverride_path = true\ncapabilities = [\"pull\"]\n[host.\"http://b.example/v2\".header]\na = [\"b\"]\n",
		"ca = [\"a\", \"/b\"]\nclient = [[\"a\", \"b\"], \"c\"]\nskip_verify = true\ndial_timeout = \"1s\"\n",
		"[host]\n\"https://a\" = {capabilities = []}\n[[host]]\n", "host.\"a\".ca = 1\n", "[host.\"a\".b.c.d.e.f.g.h.i]\n", "[header]\na = \"\\u0000\"\n", "a = [[[[]]]]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		servers, err := parseHosts("hosts.toml", data)
		if err != nil {
			if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "hosts.toml") {
				t.Errorf("%v has no kind, or not its file", err)
			}
			return
		}
		for n, s := range servers {
			if s.host == "" && n < len(servers)-1 || s.host != "" && s.scheme != "http" && s.scheme != "https" || strings.HasSuffix(s.root, "/") {
				t.Errorf("server %d: %+v", n, s)
			}
		}
	})
}
