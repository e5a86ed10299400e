package spec

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// User is whom a container's first process runs as.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Additional are the supplementary groups: the primary one first, so that
	// dropping it does not shed a "no access for this group", then the others
	// in ascending order.
	Additional []uint32 `json:"additional,omitempty"`
	// Home and Name come from the image's passwd; Home is "/" where it has no
	// such user.
	Home string `json:"home"`
	Name string `json:"name,omitempty"`
}

// ResolveUser decides the user: the configuration's, else the image's USER
// ("user[:group]"), else root. Names are looked up in the image's passwd and
// group, which may be nil and are read within bounds; each is read once.
//
// A text of digits is a number, never a name, and one of more than 31 bits is
// refused (CVE-2024-40635, CVE-2026-46680).
func ResolveUser(c *cri.ContainerConfig, imageUser string, passwd, group io.Reader) (User, error) {
	s := c.GetLinux().GetSecurityContext()
	want, err := wantedUser(s, imageUser)
	if err != nil {
		return User{}, err
	}
	entry, found, err := findUser(passwd, want.user)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", want.user.text, err)
	}
	if !found && !want.user.numeric {
		return User{}, fmt.Errorf("user %q is not in the image's passwd: %w", want.user.text, errs.Invalid)
	}
	u := User{UID: want.user.id, Home: "/"}
	if found {
		u = User{UID: entry.uid, GID: entry.gid, Name: entry.name, Home: entry.home}
	}
	if !strings.HasPrefix(u.Home, "/") {
		u.Home = "/"
	}
	return resolveGroups(u, want.group, s, group)
}

// resolveGroups settles the primary group and the supplementary ones.
func resolveGroups(u User, primary *principal, s *cri.LinuxContainerSecurityContext, file io.Reader) (User, error) {
	merge := s.GetSupplementalGroupsPolicy() == cri.SupplementalGroupsPolicy_Merge
	if !merge && s.GetSupplementalGroupsPolicy() != cri.SupplementalGroupsPolicy_Strict {
		return User{}, fmt.Errorf("supplemental groups policy %s: %w", s.GetSupplementalGroupsPolicy(), errs.Invalid)
	}
	var named, member []uint32
	if merge && u.Name != "" || primary != nil && !primary.numeric {
		var err error
		if named, member, err = scanGroups(file, primary, u.Name); err != nil {
			return User{}, err
		}
	}
	switch {
	case primary == nil:
	case primary.numeric:
		u.GID = primary.id
	case len(named) == 0:
		return User{}, fmt.Errorf("group %q is not in the image's group file: %w", primary.text, errs.Invalid)
	default:
		u.GID = named[0]
	}
	var others []uint32
	if merge {
		others = member
	}
	for _, g := range s.GetSupplementalGroups() {
		id, err := checkID(g)
		if err != nil {
			return User{}, fmt.Errorf("supplemental group %d: %w", g, err)
		}
		others = append(others, id)
	}
	slices.Sort(others)
	u.Additional = []uint32{u.GID}
	for _, g := range slices.Compact(others) {
		if g != u.GID {
			u.Additional = append(u.Additional, g)
		}
	}
	return u, nil
}

// wanted is whom the configuration or the image asks for; a nil group means
// the user's own.
type wanted struct {
	user  principal
	group *principal
}

func wantedUser(s *cri.LinuxContainerSecurityContext, imageUser string) (wanted, error) {
	uid, gid, name := s.GetRunAsUser(), s.GetRunAsGroup(), s.GetRunAsUsername()
	switch {
	case uid != nil && name != "":
		return wanted{}, fmt.Errorf("both run_as_user and run_as_username: %w", errs.Invalid)
	case gid != nil && uid == nil && name == "":
		return wanted{}, fmt.Errorf("run_as_group without run_as_user or run_as_username: %w", errs.Invalid)
	case uid == nil && name == "":
		return imagePrincipals(imageUser)
	}
	var w wanted
	if uid != nil {
		id, err := checkID(uid.GetValue())
		if err != nil {
			return wanted{}, fmt.Errorf("run_as_user %d: %w", uid.GetValue(), err)
		}
		w.user = principal{id: id, numeric: true, text: strconv.FormatUint(uint64(id), 10)}
	} else {
		// The field is a name and must exist, digits or not.
		w.user = principal{text: name}
	}
	if gid != nil {
		id, err := checkID(gid.GetValue())
		if err != nil {
			return wanted{}, fmt.Errorf("run_as_group %d: %w", gid.GetValue(), err)
		}
		w.group = &principal{id: id, numeric: true}
	}
	return w, nil
}

func imagePrincipals(text string) (wanted, error) {
	user, group, hasGroup := strings.Cut(text, ":")
	if user == "" {
		user = "0"
	}
	var w wanted
	var err error
	if w.user, err = parsePrincipal(user); err != nil {
		return wanted{}, fmt.Errorf("image user %q: %w", text, err)
	}
	if hasGroup && group != "" {
		p, err := parsePrincipal(group)
		if err != nil {
			return wanted{}, fmt.Errorf("image user %q: %w", text, err)
		}
		w.group = &p
	}
	return w, nil
}

// principal is a user or group, by number or by name.
type principal struct {
	text    string
	id      uint32
	numeric bool
}

func parsePrincipal(text string) (principal, error) {
	if !numeric(text) {
		if strings.ContainsAny(text, ":\n\r\x00") {
			return principal{}, fmt.Errorf("malformed name: %w", errs.Invalid)
		}
		return principal{text: text}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return principal{}, fmt.Errorf("number is out of range: %w", errs.Invalid)
	}
	id, err := checkID(n)
	if err != nil {
		return principal{}, err
	}
	return principal{text: text, id: id, numeric: true}, nil
}

// numeric tells whether text is digits with or without a sign.
func numeric(text string) bool {
	digits := strings.TrimLeft(text, "+-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

func checkID(n int64) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("number is out of range: %w", errs.Invalid)
	}
	return uint32(n), nil
}
