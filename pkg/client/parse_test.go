package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func TestParsePort(t *testing.T) {
	port := func(proto runtimeapi.Protocol, ip string, host, ctr int32) *runtimeapi.PortMapping {
		return &runtimeapi.PortMapping{Protocol: proto, HostIp: ip, HostPort: host, ContainerPort: ctr}
	}
	const tcp, udp = runtimeapi.Protocol_TCP, runtimeapi.Protocol_UDP
	for s, want := range map[string][]*runtimeapi.PortMapping{
		"80":                   {port(tcp, "", 80, 80)},
		"8080:80":              {port(tcp, "", 8080, 80)},
		"8080:80/udp":          {port(udp, "", 8080, 80)},
		"127.0.0.1:8080:80":    {port(tcp, "127.0.0.1", 8080, 80)},
		"127.0.0.1::80":        {port(tcp, "127.0.0.1", 80, 80)},
		"[::1]:8080:80/TCP":    {port(tcp, "::1", 8080, 80)},
		"8000-8001:90-91/sctp": {port(runtimeapi.Protocol_SCTP, "", 8000, 90), port(runtimeapi.Protocol_SCTP, "", 8001, 91)},
	} {
		got, err := ParsePort(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("%q: %s", s, d)
		}
	}
	for _, s := range []string{"", "0", "65536", "x", "80:", ":80", "1:2:3", "1.2.3.4:1:2:3", "80/icmp", "8000-8001:90", "1-2000", "[::1:80", "2-1", "[fe80::1%eth0]:1:2", "-1", "+1"} {
		if got, err := ParsePort(s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	f.Add("127.0.0.1:8080-8081:80-81/udp")
	f.Add("[::1]:1:2")
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePort(s)
		if err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("kind of %v", err)
		}
		for _, p := range ports {
			if p.HostPort < 1 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
				t.Errorf("%q became %v", s, p)
			}
		}
	})
}

func TestParseVolume(t *testing.T) {
	const rslave, rshared = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	for s, want := range map[string]Volume{
		"/srv:/data":              {HostPath: "/srv", Path: "/data"},
		"/srv/../etc:/data/:ro":   {HostPath: "/etc", Path: "/data", ReadOnly: true},
		"./site:/www:rw,rslave":   {HostPath: "/home/me/site", Path: "/www", Propagation: rslave},
		"..:/up:rshared":          {HostPath: "/home", Path: "/up", Propagation: rshared},
		"cache:/cache:ro,private": {Name: "cache", Path: "/cache", ReadOnly: true},
	} {
		if got, err := ParseVolume(s, "/home/me"); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "/srv", "/srv:data", "/srv:/", "/srv:/..", "a/b:/c", "/a:/b:c:d", "/a:/b:rx", ":/a", "-x:/a", "/a:/b:"} {
		if got, err := ParseVolume(s, "/home/me"); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
}

func FuzzParseVolume(f *testing.F) {
	f.Add("./a:/b:ro,rslave")
	f.Add("name:/b")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVolume(s, "/home/me")
		switch {
		case err != nil:
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("kind of %v", err)
			}
		case (v.Name == "") == (v.HostPath == ""), !strings.HasPrefix(v.Path, "/"), v.Path == "/":
			t.Errorf("%q became %+v", s, v)
		}
	})
}

func TestEnvFromFileAndCaller(t *testing.T) {
	lookup := func(name string) (string, bool) { return "mine", name == "HOME" }
	got, err := ReadEnvFile(strings.NewReader("# no\n\n A=1\nB=\"x\" y\nHOME\nUNSET\nC="), lookup)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, kv := range got {
		all = append(all, kv.Key+"="+string(kv.Value))
	}
	if d := cmp.Diff([]string{"A=1", `B="x" y`, "HOME=mine", "C="}, all); d != "" {
		t.Error(d)
	}
	if _, _, err := ParseEnv("=x", lookup); !errors.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadEnvFile(f *testing.F) {
	f.Add("A=1\n#\nB")
	f.Fuzz(func(t *testing.T, s string) {
		all, _ := ReadEnvFile(strings.NewReader(s), func(string) (string, bool) { return "", false })
		for _, kv := range all {
			if kv.Key == "" || strings.ContainsAny(kv.Key, "=\x00\n") {
				t.Errorf("%q became %q", s, kv.Key)
			}
		}
	})
}

func TestUserIsNameOrNumberAndNeverBoth(t *testing.T) {
	for s, want := range map[string]string{"": "", "me": "me", "0": "0", "1000:100": "1000:100", "me:5": "me:5"} {
		sc := &runtimeapi.LinuxContainerSecurityContext{}
		if err := setUser(sc, s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if sc.RunAsUser != nil && sc.RunAsUsername != "" {
			t.Errorf("%q: %v", s, sc)
		}
		if want == "1000:100" && (sc.RunAsUser.GetValue() != 1000 || sc.RunAsGroup.GetValue() != 100) {
			t.Errorf("%q: %v", s, sc)
		}
	}
	for _, s := range []string{":5", "me:", "me:wheel", "4294967296", "-1", "0:4294967296"} {
		if err := setUser(&runtimeapi.LinuxContainerSecurityContext{}, s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
