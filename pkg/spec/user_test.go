package spec_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

const (
	passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
1001:x:0:0:a name of digits:/root:/bin/sh
99999999999:x:0:0:another:/root:/bin/sh
app:x:1000:1000::/home/app:/bin/sh
big:x:4294967296:0::/:/bin/sh
nohome:x:1002:1002:::/bin/sh
short:x:7
`
	group = `root:x:0:
app:x:1000:
video:x:44:app,other
audio:x:29: app
wheel:x:10:root
huge:x:4294967296:somebody
`
)

func securityOf(s *cri.LinuxContainerSecurityContext) *cri.ContainerConfig {
	return &cri.ContainerConfig{Linux: &cri.LinuxContainerConfig{SecurityContext: s}}
}

func resolve(s *cri.LinuxContainerSecurityContext, image string) (spec.User, error) {
	return spec.ResolveUser(securityOf(s), image, strings.NewReader(passwd), strings.NewReader(group))
}

func id(n int64) *cri.Int64Value { return &cri.Int64Value{Value: n} }

func TestResolveUser(t *testing.T) {
	strict := cri.SupplementalGroupsPolicy_Strict
	for _, c := range []struct {
		name  string
		s     *cri.LinuxContainerSecurityContext
		image string
		want  spec.User
	}{
		{"nobody says anything", nil, "", spec.User{Home: "/root", Name: "root", Additional: []uint32{0, 10}}},
		{"image name", nil, "app", spec.User{UID: 1000, GID: 1000, Home: "/home/app", Name: "app", Additional: []uint32{1000, 29, 44}}},
		{"image name and group", nil, "app:video", spec.User{UID: 1000, GID: 44, Home: "/home/app", Name: "app", Additional: []uint32{44, 29}}},
		{"image numbers", nil, "5:6", spec.User{UID: 5, GID: 6, Home: "/", Additional: []uint32{6}}},
		{"image group alone", nil, ":44", spec.User{GID: 44, Home: "/root", Name: "root", Additional: []uint32{44, 10}}},
		{"digits are no name", nil, "1001", spec.User{UID: 1001, Home: "/", Additional: []uint32{0}}},
		{"number of a known user", nil, "1000", spec.User{UID: 1000, GID: 1000, Home: "/home/app", Name: "app", Additional: []uint32{1000, 29, 44}}},
		{"empty home", nil, "nohome", spec.User{UID: 1002, GID: 1002, Home: "/", Name: "nohome", Additional: []uint32{1002}}},
		{
			"configuration wins", &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), RunAsGroup: id(7)}, "root",
			spec.User{UID: 1000, GID: 7, Home: "/home/app", Name: "app", Additional: []uint32{7, 29, 44}},
		},
		{
			"user name", &cri.LinuxContainerSecurityContext{RunAsUsername: "app"}, "0",
			spec.User{UID: 1000, GID: 1000, Home: "/home/app", Name: "app", Additional: []uint32{1000, 29, 44}},
		},
		{
			"merge", &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), SupplementalGroups: []int64{60000, 44, 1000}}, "",
			spec.User{UID: 1000, GID: 1000, Home: "/home/app", Name: "app", Additional: []uint32{1000, 29, 44, 60000}},
		},
		{
			"strict", &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), SupplementalGroups: []int64{60000}, SupplementalGroupsPolicy: strict}, "",
			spec.User{UID: 1000, GID: 1000, Home: "/home/app", Name: "app", Additional: []uint32{1000, 60000}},
		},
		{
			"strict, image group by name", &cri.LinuxContainerSecurityContext{SupplementalGroupsPolicy: strict}, "app:video",
			spec.User{UID: 1000, GID: 44, Home: "/home/app", Name: "app", Additional: []uint32{44}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := resolve(c.s, c.image)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestResolveUserRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		s     *cri.LinuxContainerSecurityContext
		image string
	}{
		{"32 bits", nil, "4294967296"},
		{"31 bits", nil, "2147483648"},
		{"11 digits that passwd has as a name", nil, "99999999999"},
		{"beyond 64 bits", nil, "99999999999999999999999"},
		{"negative", nil, "-1"},
		{"signed", nil, "+-1"},
		{"unknown name", nil, "nobody"},
		{"unknown group", nil, "app:nobody"},
		{"group out of range", nil, "app:4294967296"},
		{"entry out of range", nil, "big"},
		{"entry too short", nil, "short"},
		{"two colons", nil, "app:video:root"},
		{"new line", nil, "app\nroot"},
		{"run_as_user out of range", &cri.LinuxContainerSecurityContext{RunAsUser: id(1 << 32)}, ""},
		{"run_as_user negative", &cri.LinuxContainerSecurityContext{RunAsUser: id(-1)}, ""},
		{"run_as_group alone", &cri.LinuxContainerSecurityContext{RunAsGroup: id(1)}, ""},
		{"user and name", &cri.LinuxContainerSecurityContext{RunAsUser: id(1), RunAsUsername: "app"}, ""},
		{"unknown run_as_username", &cri.LinuxContainerSecurityContext{RunAsUsername: "nobody"}, ""},
		{"supplemental group", &cri.LinuxContainerSecurityContext{SupplementalGroups: []int64{1 << 31}}, ""},
		{"policy", &cri.LinuxContainerSecurityContext{SupplementalGroupsPolicy: 7}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if u, err := resolve(c.s, c.image); !errors.Is(err, errs.Invalid) {
				t.Errorf("got %+v, %v", u, err)
			}
		})
	}
}

func TestResolveUserWithoutFiles(t *testing.T) {
	u, err := spec.ResolveUser(securityOf(nil), "7:8", nil, nil)
	if err != nil || u.UID != 7 || u.GID != 8 || u.Home != "/" {
		t.Errorf("%+v, %v", u, err)
	}
}

// endless never ends, as a sparse file of terabytes.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func TestResolveUserBoundsItsReading(t *testing.T) {
	for name, file := range map[string]io.Reader{
		"a long line": endless("x"), "many lines": endless("u:x:5:5::/:\n"), "nothing but new lines": endless("\n"),
	} {
		if _, err := spec.ResolveUser(securityOf(nil), "app", file, nil); !errors.Is(err, errs.Invalid) {
			t.Errorf("passwd of %s: %v", name, err)
		}
		if _, err := spec.ResolveUser(securityOf(nil), "app", strings.NewReader(passwd), file); !errors.Is(err, errs.Invalid) {
			t.Errorf("group of %s: %v", name, err)
		}
	}
	if _, err := spec.ResolveUser(securityOf(nil), "app", io.MultiReader(strings.NewReader(passwd), endless("\n")), nil); err != nil {
		t.Errorf("an entry before the bound: %v", err)
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:video", passwd, group)
	f.Add("1001", "1001:x:0:0::/:", "")
	f.Fuzz(func(t *testing.T, user, passwd, group string) {
		u, err := spec.ResolveUser(securityOf(nil), user, strings.NewReader(passwd), strings.NewReader(group))
		if err != nil {
			return
		}
		if len(u.Additional) == 0 || u.Additional[0] != u.GID || !strings.HasPrefix(u.Home, "/") || strings.Contains(u.Home, "\n") {
			t.Errorf("%+v", u)
		}
		if u.UID == 0 && strings.Trim(user, "0123456789") == "" && strings.Trim(user, "0") != "" {
			t.Errorf("%q became root", user)
		}
	})
}
