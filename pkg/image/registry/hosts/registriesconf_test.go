package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/errs"
)

var digested = "@sha256:" + strings.Repeat("a", 64)

// conf is a configuration of one registries.conf.
func confOf(t testing.TB, text string) *Files {
	t.Helper()
	return New(Options{RegistriesConf: []string{filepath.Join(write(t, map[string]string{"registries.conf": text}), "registries.conf")}})
}

// asked is a registries.conf and the endpoints that it has for a name.
type asked struct {
	name, text, ref string
	want            []string
}

func (c asked) test(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		got, err := confOf(t, c.text).Endpoints(name(t, c.ref))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, short(got)); d != "" {
			t.Error(d)
		}
	})
}

func TestRegistriesConfSaysWhichServersAreAsked(t *testing.T) {
	for _, c := range []asked{
		{"nothing", "", "quay.io/a/b:1", []string{"https://quay.io/v2/a/b own"}},
		{"location", "[[registry]]\nlocation = \"quay.io\"\n", "quay.io/a/b:1", []string{"https://quay.io/v2/a/b own"}},
		{
			"rewritten", "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"internal.example/bar/\"\n", "example.com/foo/image:1",
			[]string{"https://internal.example/v2/bar/image"},
		},
		{"not below the prefix", "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"internal.example/bar\"\n", "example.com/foobar:1", []string{"https://example.com/v2/foobar own"}},
		{"another port", "[[registry]]\nprefix = \"example.com\"\nlocation = \"internal.example\"\n", "example.com:5000/foo:1", []string{"https://example.com:5000/v2/foo own"}},
		{
			"the longest prefix", "[[registry]]\nprefix = \"example.com\"\nlocation = \"one.example\"\n[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"two.example/foo\"\n",
			"example.com/foo/image:1",
			[]string{"https://two.example/v2/foo/image"},
		},
		{
			"mirrors", "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"one.example/hub\"\n[[registry.mirror]]\nlocation = \"two.example\"\ninsecure = true\n",
			"busybox",
			[]string{
				"https://one.example/v2/hub/library/busybox -push", "https://two.example/v2/library/busybox -push unverified",
				"http://two.example/v2/library/busybox -push unverified fallback", "https://registry-1.docker.io/v2/library/busybox own",
			},
		},
		{
			"mirrors by digest only, a tag", "[[registry]]\nlocation = \"quay.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"one.example\"\n",
			"quay.io/a:1",
			[]string{"https://quay.io/v2/a own"},
		},
		{
			"mirrors by digest only, a digest", "[[registry]]\nlocation = \"quay.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"one.example\"\n",
			"quay.io/a" + digested,
			[]string{"https://one.example/v2/a -push", "https://quay.io/v2/a own"},
		},
		{
			"pull-from-mirror, a tag", "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"one.example\"\npull-from-mirror = \"digest-only\"\n[[registry.mirror]]\nlocation = \"two.example\"\npull-from-mirror = \"tag-only\"\n",
			"quay.io/a:1",
			[]string{"https://two.example/v2/a -push", "https://quay.io/v2/a own"},
		},
		{
			"pull-from-mirror, a digest", "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"one.example\"\npull-from-mirror = \"digest-only\"\n[[registry.mirror]]\nlocation = \"two.example\"\npull-from-mirror = \"tag-only\"\n[[registry.mirror]]\nlocation = \"three.example\"\npull-from-mirror = \"all\"\n",
			"quay.io/a" + digested,
			[]string{"https://one.example/v2/a -push", "https://three.example/v2/a -push", "https://quay.io/v2/a own"},
		},
		{"a repository's own", "[[registry]]\nprefix = \"quay.io/a/b\"\nlocation = \"m.example/c\"\n", "quay.io/a/b:1", []string{"https://m.example/v2/c"}},
		{"namespace of a proxy", "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"m.example\"\nnamespace-proxy = \"quay.io\"\n", "quay.io/a:1", []string{"https://m.example/v2/a -push ns=quay.io", "https://quay.io/v2/a own"}},
		{"the first of two with one prefix", "[[registry]]\nprefix = \"quay.io\"\nlocation = \"one.example\"\n[[registry]]\nprefix = \"quay.io\"\nlocation = \"two.example\"\n", "quay.io/a:1", []string{"https://one.example/v2/a"}},
		{"unknown keys", "extra = 1\n[[registry]]\nlocation = \"quay.io\"\nextra = 2\n", "quay.io/a:1", []string{"https://quay.io/v2/a own"}},
	} {
		c.test(t)
	}
}

func TestWildcardsStandForSubdomains(t *testing.T) {
	for _, c := range []asked{
		{"wildcard", "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\n", "b.a.example.com/x:1", []string{"https://b.a.example.com/v2/x unverified own", "http://b.a.example.com/v2/x unverified fallback own"}},
		{"wildcard of a top-level domain", "[[registry]]\nprefix = \"*.com\"\ninsecure = true\n", "a.com/x:1", []string{"https://a.com/v2/x unverified own", "http://a.com/v2/x unverified fallback own"}},
		{"wildcard, not the domain itself", "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\n", "example.com/x:1", []string{"https://example.com/v2/x own"}},
		{"wildcard, not in a path", "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\n", "other.example/a.example.com/x:1", []string{"https://other.example/v2/a.example.com/x own"}},
		{"wildcard with a location", "[[registry]]\nprefix = \"*.example.com\"\nlocation = \"m.example/all\"\n", "a.example.com/x:1", []string{"https://m.example/v2/all/x"}},
	} {
		c.test(t)
	}
}

func TestBlockedRegistriesAreRefused(t *testing.T) {
	f := confOf(t, "[[registry]]\nprefix = \"bad.example\"\nlocation = \"bad.example\"\nblocked = true\n[[registry]]\nprefix = \"bad.example/but/good\"\nlocation = \"bad.example/but/good\"\n[[registry]]\nprefix = \"*.bad.example\"\nblocked = true\n[[registry]]\nprefix = \"quay.io/a:old\"\nlocation = \"quay.io/a:old\"\nblocked = true\n")
	for ref, blocked := range map[string]bool{
		"bad.example/x:1": true, "bad.example/but/good:1": false, "a.bad.example/x" + digested: true, "good.example/x:1": false,
		"quay.io/a:old": true, "quay.io/a:older": false,
	} {
		_, err := f.Endpoints(name(t, ref))
		if errors.Is(err, errs.Denied) != blocked || blocked && !strings.Contains(err.Error(), "registries.conf") {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestDropInsAreLaidOverTheMainFileByName(t *testing.T) {
	mirror := func(prefix, location string) string {
		return fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\n", prefix, location)
	}
	root := write(t, map[string]string{
		"etc/registries.conf":            "unqualified-search-registries = [\"main.example\"]\n" + mirror("a.example", "main.example") + mirror("b.example", "main.example") + mirror("e.example", "main.example"),
		"etc/registries.conf.d/20.conf":  mirror("a.example", "twenty.example") + "[aliases]\nx = \"twenty.example/x\"\ny = \"twenty.example/y\"\n",
		"etc/registries.conf.d/10.conf":  mirror("a.example", "ten.example") + mirror("b.example", "ten.example") + "[aliases]\nx = \"ten.example/x\"\n",
		"etc/registries.conf.d/30.conf":  "unqualified-search-registries = [\"thirty.example\"]\n[aliases]\ny = \"\"\n",
		"etc/registries.conf.d/40.ignor": "syntax error",
		"usr/registries.conf":            mirror("a.example", "not.example"),
		"usr/registries.conf.d/10.conf":  mirror("b.example", "not.example"),
		"usr/registries.conf.d/15.conf":  mirror("c.example", "fifteen.example"),
	})
	f := New(Options{RegistriesConf: []string{filepath.Join(root, "etc/registries.conf"), filepath.Join(root, "usr/registries.conf")}})
	for ref, want := range map[string]string{
		"a.example/i:1": "twenty.example", "b.example/i:1": "ten.example", "c.example/i:1": "fifteen.example", "e.example/i:1": "main.example",
	} {
		if got, err := f.Endpoints(name(t, ref)); err != nil || len(got) != 1 || got[0].Host != want {
			t.Errorf("%s: %v, %v", ref, got, err)
		}
	}
	for ref, want := range map[string]string{"x": "twenty.example/x:latest", "y": "thirty.example/y:latest", "z": "thirty.example/z:latest"} {
		if got, err := f.Candidates(ref); err != nil || len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, %v", ref, got, err)
		}
	}
}

func TestShortNames(t *testing.T) {
	two := "unqualified-search-registries = [\"one.example\", \"docker.io\"]\n"
	alias := "[aliases]\n\"fedora\" = \"registry.example/fedora\"\n\"team/app\" = \"registry.example/app\"\n"
	for _, c := range []struct {
		name, text, ref string
		want            []string
		wrong           string
	}{
		{"nothing said", "", "busybox", []string{"docker.io/library/busybox:latest"}, ""},
		{"a whole name", two, "quay.io/a:1", []string{"quay.io/a:1"}, ""},
		{"in each registry", two, "busybox:1", []string{"one.example/busybox:1", "docker.io/library/busybox:1"}, ""},
		{"with a namespace and a digest", two, "a/b" + digested, []string{"one.example/a/b" + digested, "docker.io/a/b" + digested}, ""},
		{"alias", two + alias, "fedora:40", []string{"registry.example/fedora:40"}, ""},
		{"alias of a path", two + alias, "team/app", []string{"registry.example/app:latest"}, ""},
		{"no alias of what is below", two + alias, "fedora/x", []string{"one.example/fedora/x:latest", "docker.io/fedora/x:latest"}, ""},
		{"ambiguous", two + "short-name-mode = \"enforcing\"\n", "busybox", nil, "it may mean one.example/busybox:latest or docker.io/library/busybox:latest"},
		{"enforcing, an alias", two + "short-name-mode = \"enforcing\"\n" + alias, "fedora", []string{"registry.example/fedora:latest"}, ""},
		{"enforcing, one registry", "unqualified-search-registries = [\"one.example\"]\nshort-name-mode = \"enforcing\"\n", "busybox", []string{"one.example/busybox:latest"}, ""},
		{"disabled", two + "short-name-mode = \"disabled\"\n", "busybox", []string{"one.example/busybox:latest", "docker.io/library/busybox:latest"}, ""},
		{"no registries", "unqualified-search-registries = []\n", "busybox", nil, "registries.conf has no unqualified-search-registries"},
		{"not a name", two, "Busybox", nil, "invalid argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := confOf(t, c.text).Candidates(c.ref)
			if c.wrong != "" {
				if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			var names []string
			for _, n := range got {
				names = append(names, n.String())
			}
			if d := cmp.Diff(c.want, names); err != nil || d != "" {
				t.Error(err, d)
			}
		})
	}
}

func TestShortNamesOfImagesThatAreHere(t *testing.T) {
	f := confOf(t, "unqualified-search-registries = [\"one.example\"]\nshort-name-mode = \"enforcing\"\n")
	var names []string
	for _, n := range f.Local("busybox") {
		names = append(names, n.String())
	}
	want := []string{"one.example/busybox:latest", "localhost/busybox:latest", "docker.io/library/busybox:latest"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if got := f.Local("Busybox"); got != nil {
		t.Errorf("not a name: %v", got)
	}
}

func TestABadTableConcernsItsPrefixAlone(t *testing.T) {
	for _, c := range []struct{ text, ref, want string }{
		{"[[registry]]\nprefix = \"a.example\"\n", "a.example/x:1", ":1: location is missing"},
		{"\n[[registry]]\nlocation = \"good.example\"\n[[registry]]\nprefix = \"a.example\"\nlocation = \"https://b.example\"\n", "a.example/x:1", ":6: location"},
		{"[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\n[[registry.mirror]]\nlocation = \"\"\n", "a.example/x:1", ":6: location"},
		{"[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"some\"\n", "a.example/x:1", ":5: pull-from-mirror \"some\""},
		{"[[registry]]\nlocation = \"a.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"all\"\n", "a.example/x:1", ":6: pull-from-mirror and"},
		{"[[registry]]\nlocation = \"a.example\"\npull-from-mirror = \"all\"\n", "a.example/x:1", ":3: pull-from-mirror is for mirrors"},
		{"[[registry]]\nprefix = \"a.example/x\"\nlocation = \"b.example\"\nblocked = true\n[[registry]]\nprefix = \"c.example\"\nlocation = \"b.example\"\n", "a.example/x:1", ":5: location b.example is there before"},
	} {
		f := confOf(t, c.text)
		if _, err := f.Endpoints(name(t, c.ref)); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "registries.conf"+c.want) {
			t.Errorf("%q: %v", c.text, err)
		}
		if _, err := f.Endpoints(name(t, "good.example/x:1")); err != nil {
			t.Errorf("%q: another name: %v", c.text, err)
		}
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: Check: %v", c.text, err)
		}
	}
}

func TestABadRegistriesConfStopsPullsUntilItIsMended(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[[registry]\n", ":1: "},
		{"\n[[registry]]\nlocation = 7\n", ":3: "},
		{"\n[[registry]]\nblocked = true\n", ":2: a registry with neither"},
		{"[[registry]]\nprefix = \"*.a.example/x\"\n", ":2: prefix \"*.a.example/x\""},
		{"\nunqualified-search-registries = [\"a/b\"]\n", ":2: \"a/b\" is not a registry"},
		{"unqualified-search-registries = [\"registry\"]\n", ":1: \"registry\" is not a registry"},
		{"short-name-mode = \"strict\"\n", ":1: \"strict\" is none of"},
		{"[aliases]\na = \"b\"\n", ":2: \"b\" is not a name"},
		{"[aliases]\na = \"x.example/b:1\"\n", ":2: \"x.example/b:1\" is not a name"},
		{"[aliases]\n\n\"a:1\" = \"x.example/b\"\n", ":3: \"a:1\" is not a short name"},
		{"[registries.search]\nregistries = [\"a\"]\n", ":1: the first version"},
	} {
		f := confOf(t, c.text)
		ref := "b.a.example/x/y:1"
		if _, err := f.Endpoints(name(t, ref)); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "registries.conf"+c.want) {
			t.Errorf("%q: %v", c.text, err)
		}
		if err := os.WriteFile(f.options.RegistriesConf[0], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Endpoints(name(t, ref)); err != nil {
			t.Errorf("%q, mended: %v", c.text, err)
		}
	}
}

func TestBothKindsOfFiles(t *testing.T) {
	root := write(t, map[string]string{
		"certs/own.example/hosts.toml":     "[host.\"https://toml.example\"]\n",
		"certs/block.example/hosts.toml":   "[host.\"https://toml.example\"]\n",
		"certs/certs.example/ca.crt":       "",
		"certs/_default/hosts.toml":        "[host.\"https://default.example\"]\n",
		"certs/m.example_5000_/client.pem": "",
		"certs/m.example_5000_/hosts.toml": "server = \"https://m.example:5000\"\nclient = \"client.pem\"\nskip_verify = true\n[host.\"https://not.asked.example\"]\n",
		"registries.conf": `
[[registry]]
location = "own.example"
[[registry.mirror]]
location = "conf.example"
[[registry]]
location = "block.example"
blocked = true
[[registry]]
location = "certs.example"
[[registry.mirror]]
location = "m.example:5000"
`,
	})
	f := New(Options{CertsDirs: []string{filepath.Join(root, "certs")}, RegistriesConf: []string{filepath.Join(root, "registries.conf")}})
	for ref, want := range map[string][]string{
		"own.example/x:1":   {"https://toml.example/v2/x ns=own.example", "https://own.example/v2/x own"},
		"certs.example/x:1": {"https://m.example:5000/v2/x -push unverified", "https://certs.example/v2/x own"},
		"other.example/x:1": {"https://default.example/v2/x ns=other.example", "https://other.example/v2/x own"},
	} {
		got, err := f.Endpoints(name(t, ref))
		if d := cmp.Diff(want, short(got)); err != nil || d != "" {
			t.Errorf("%s: %v %s", ref, err, d)
		}
		if ref == "certs.example/x:1" && (len(got[0].TLS.Clients) != 1 || len(got[1].TLS.CA) != 1) {
			t.Errorf("certificates: %+v, %+v", got[0].TLS, got[1].TLS)
		}
	}
	if _, err := f.Endpoints(name(t, "block.example/x:1")); !errors.Is(err, errs.Denied) {
		t.Errorf("blocked: %v", err)
	}
}

func TestParsingTakesNoLongerThanItsFileIsLong(t *testing.T) {
	deep := maxFile / 4
	var many strings.Builder
	for n := range maxFile / 40 {
		fmt.Fprintf(&many, "[[registry]]\nlocation=\"a%d.b\"\n", n)
	}
	for _, text := range []string{
		"a = " + strings.Repeat("[", deep) + strings.Repeat("]", deep),
		"a = " + strings.Repeat("{a=", deep) + "1" + strings.Repeat("}", deep),
		strings.Repeat("a.", deep) + "a = 1",
		"[" + strings.Repeat("a.", deep) + "a]",
		many.String(),
		strings.Repeat("[[registry]]\n[[registry.mirror]]\n", maxFile/40),
		strings.Repeat("[[a.b.c.d.e.f]]\n", maxFile/20),
	} {
		begin := time.Now()
		_ = newTable().add("registries.conf", []byte(text)) // what matters is that it ends
		_, _ = parseHosts("hosts.toml", []byte(text))
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%.30q: %s", text, took)
		}
	}
}

func FuzzRegistriesConf(f *testing.F) {
	for _, s := range []string{
		"unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"enforcing\"\ncredential-helpers = [\"x\"]\n[aliases]\na = \"b.c/d\"\n",
		"[[registry]]\nprefix = \"*.example.com\"\nlocation = \"a.example/b\"\n[[registry.mirror]]\nlocation = \"c.example:5000\"\npull-from-mirror = \"tag-only\"\n",
		"[[registry]]\nprefix = \"example.com/a:b\"\nlocation = \"x\"\nblocked = true\n[registry.mirror]\n", "[registries]\n", "[[registry.mirror]]\n", "registry = [{}]\n",
	} {
		f.Add([]byte(s), "a.example.com/b/c:d")
	}
	f.Fuzz(func(t *testing.T, data []byte, ref string) {
		table := newTable()
		if err := table.add("registries.conf", data); err != nil && (!errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "registries.conf")) {
			t.Errorf("%v has no kind, or not its file", err)
		}
		files := New(Options{})
		files.table.Store(table)
		for _, n := range files.Local(ref) {
			r, ok := table.match(full(n))
			if !ok || r.fault != nil {
				continue
			}
			list, err := files.ofRegistry(r, n)
			if err == nil && len(list) == 0 {
				t.Errorf("%s: no endpoint", n)
			}
			for _, e := range list {
				if e.Host == "" || e.Repository == "" {
					t.Errorf("%s: %+v", n, e)
				}
			}
		}
	})
}
