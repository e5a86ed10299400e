package client

import (
	"math"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// setUser reads what -u takes, USER[:GROUP], into sc. CRI takes a user by name
// or number, a group by number and only beside a user.
func setUser(sc *runtimeapi.LinuxContainerSecurityContext, s string) error {
	if s == "" {
		return nil
	}
	user, group, hasGroup := strings.Cut(s, ":")
	if user == "" || (hasGroup && group == "") {
		return fail(errs.Invalid, "user %q: write USER or USER:GROUP", s)
	}
	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		if uid < 0 || uid > math.MaxInt32 {
			return fail(errs.Invalid, "user %q: a number goes from 0 to %d", s, math.MaxInt32)
		}
		sc.RunAsUser = &runtimeapi.Int64Value{Value: uid}
	} else {
		sc.RunAsUsername = user
	}
	if !hasGroup {
		return nil
	}
	gid, err := strconv.ParseInt(group, 10, 64)
	if err != nil || gid < 0 || gid > math.MaxInt32 {
		return fail(errs.Invalid, "user %q: give the group as a number from 0 to %d", s, math.MaxInt32)
	}
	sc.RunAsGroup = &runtimeapi.Int64Value{Value: gid}
	return nil
}
