package reference

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestNormalize(t *testing.T) {
	sum := digest.FromString("x").String()
	for in, want := range map[string]string{
		"busybox":                        "docker.io/library/busybox:latest",
		"busybox:1.36":                   "docker.io/library/busybox:1.36",
		"team/app":                       "docker.io/team/app:latest",
		"index.docker.io/busybox":        "docker.io/library/busybox:latest",
		"docker.io/busybox":              "docker.io/library/busybox:latest",
		"localhost/app":                  "localhost/app:latest",
		"localhost:5000/app":             "localhost:5000/app:latest",
		"127.0.0.1:5000/a/b/c:v1":        "127.0.0.1:5000/a/b/c:v1",
		"[::1]:5000/app":                 "[::1]:5000/app:latest",
		"registry.example/app@" + sum:    "registry.example/app@" + sum,
		"registry.example/app:v1@" + sum: "registry.example/app@" + sum,
		"a__b/c.d-e":                     "docker.io/a__b/c.d-e:latest",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", ":", "@", "/", "app:", "app@", "App", "registry.example/App", "a/../b", "../b", "registry.example/..", "a//b", "a b",
		"app@sha256:abc", "app@sha256:" + strings.Repeat("G", 64), "app@md5:d41d8cd98f00b204e9800998ecf8427e", "app:" + strings.Repeat("t", 129),
		"http://registry.example/app", "-a.example/app", strings.Repeat("a", 300), strings.Repeat("0", 64), "app\n", "app:v1\x00", "registry.example:port/app",
	} {
		if got, err := Normalize(in); err == nil {
			t.Errorf("%.80q became %q", in, got)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/a/b:v1", "a@" + digest.FromString("x").String(), "[::1]:80/x", "a/../b", "A/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := Normalize(s)
		if err != nil {
			return
		}
		if again, err := Normalize(name); err != nil || again != name {
			t.Errorf("%q became %q, and that %q, %v", s, name, again, err)
		}
		r, err := Parse(name)
		if err != nil || strings.Contains(r.Path, "..") || strings.ContainsAny(name, "\x00\n ") {
			t.Errorf("%q became %q, %v", s, name, err)
		}
	})
}
