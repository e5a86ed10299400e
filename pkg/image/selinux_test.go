package image_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/image"
)

const testLabel = "system_u:object_r:container_file_t:s0:c1,c2"

// labelled looks whether the kernel was asked to show a mount's files with the label:
// it says so, or, without SELinux, that it knows of no such thing.
func labelled(path string, err error) error {
	if _, without := os.Stat("/sys/fs/selinux/enforce"); without != nil {
		if err == nil || !strings.Contains(err.Error(), "context="+testLabel) {
			return fmt.Errorf("without SELinux: %w", err)
		}
		return nil
	}
	mounts, readErr := os.ReadFile("/proc/self/mountinfo")
	if err != nil || readErr != nil {
		return fmt.Errorf("%w, %w", err, readErr)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " "+path+" ") && strings.Contains(line, testLabel) {
			return nil
		}
	}
	return fmt.Errorf("%s is mounted without it", path)
}

func TestRootFileSystemsAndVolumesAreMountedWithTheirLabel(t *testing.T) {
	reg := serve(t, nil)
	ref, _ := put(t, reg, "1", model(t, "x"))
	s := service(t)
	pulled(t, s, ref)
	i := loaded(t, s, "app:v1", sample("new"))
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	t.Cleanup(func() { unmount(t, s, "c") })
	for _, m := range [][]specs.LinuxIDMapping{nil, maps} {
		path, err := s.Mount(t.Context(), image.MountRequest{ContainerID: "c", Image: i.ID, UIDMappings: m, GIDMappings: m, SELinuxLabel: testLabel})
		if err := labelled(path, err); err != nil {
			t.Errorf("root file system: %v", err)
		}
		for _, source := range []image.VolumeSource{{Ref: "app:v1", Path: "/a"}, {Ref: ref, Path: "/b"}, {Ref: ref, SubPath: "README", Path: "/b"}} {
			v, err := s.MountVolumes(t.Context(), image.VolumesRequest{
				ContainerID: "c", Sources: []image.VolumeSource{source}, UIDMappings: m, GIDMappings: m, SELinuxLabel: testLabel,
			})
			path := ""
			if err == nil {
				path = v[0].Path
			}
			if err := labelled(path, err); err != nil {
				t.Errorf("%s: %v", source.Ref, err)
			}
			unmount(t, s, "c")
		}
	}
}
