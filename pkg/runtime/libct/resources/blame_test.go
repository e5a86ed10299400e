package resources

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

func TestALimitThatTheKernelRefusesIsTheCallersMistake(t *testing.T) {
	const file = "/sys/fs/cgroup/cpuset/berth/c1/cpuset.cpus"
	for _, c := range []struct {
		path  string
		errno unix.Errno
		want  errs.Kind
	}{
		{file, unix.ERANGE, errs.Invalid},
		{file, unix.EINVAL, errs.Invalid},
		{file, unix.EBUSY, errs.Conflict},
		{file, unix.EIO, ""},
		{"/etc/passwd", unix.EINVAL, ""},
	} {
		err := Blame(fmt.Errorf("start: %w", &fs.PathError{Op: "write", Path: c.path, Err: c.errno}), nil)
		if errs.Of(err) != c.want || !errors.Is(err, c.errno) {
			t.Errorf("%s: %v of %s is %q, want %q", c.path, c.errno, err, errs.Of(err), c.want)
		}
	}
}

func TestAStartWithNextToNoMemoryIsTheCallersMistake(t *testing.T) {
	for limit, want := range map[int64]errs.Kind{1: errs.Invalid, 64 << 20: "", -1: ""} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		if err := Blame(errors.New("cannot"), r); errs.Of(err) != want {
			t.Errorf("limit of %d bytes: %q, want %q", limit, errs.Of(err), want)
		}
	}
}
