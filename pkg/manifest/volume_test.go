package manifest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth/test/testutil"
)

func TestMemoryVolumeIsATmpfsOfItsSize(t *testing.T) {
	testutil.Root(t)
	limit, group := resource.MustParse("1Mi"), int64(1234)
	p := &corev1.Pod{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{FSGroup: &group},
		Volumes: []corev1.Volume{
			{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}},
			{Name: "d", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
	}}
	dir := filepath.Join(t.TempDir(), "volumes")
	t.Cleanup(func() { _ = removeVolumes(dir) }) // where the test ends early
	for range 2 {
		paths, err := prepareVolumes(p, dir)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(paths["m"], &st); err != nil || st.Type != unix.TMPFS_MAGIC || int64(st.Blocks)*st.Bsize != 1<<20 {
			t.Errorf("type %x, %d bytes, %v", st.Type, int64(st.Blocks)*st.Bsize, err)
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o777 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
	for range 2 {
		if err := removeVolumes(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

func TestHostPathTypesAreHeld(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir + "/none", corev1.HostPathUnset, true},
		{dir + "/none", corev1.HostPathDirectory, false},
		{dir + "/made", corev1.HostPathDirectoryOrCreate, true},
		{dir + "/made", corev1.HostPathDirectory, true},
		{file, corev1.HostPathFileOrCreate, true},
		{file, corev1.HostPathFile, true},
		{file, corev1.HostPathDirectory, false},
		{file, corev1.HostPathSocket, false},
		{os.DevNull, corev1.HostPathCharDev, true},
		{os.DevNull, corev1.HostPathBlockDev, false},
	} {
		if err := prepareHostPath(&corev1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind}); (err == nil) != tc.ok {
			t.Errorf("%s as %q: %v", tc.path, tc.kind, err)
		}
	}
}
