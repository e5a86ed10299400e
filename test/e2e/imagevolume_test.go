package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/berth-run/berth/test/images"
)

// from mounts an image, as kubelet asks for it.
func from(id, path, sub string) *cri.Mount {
	return &cri.Mount{Image: &cri.ImageSpec{Image: id}, ContainerPath: path, ImageSubPath: sub}
}

// behind returns where a file of a container is stored.
func behind(t *testing.T, c *ctr, path string) [2]uint64 {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", c.pid(), path))
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint64{st.Dev, st.Ino}
}

// restart starts the daemon anew.
func restart(t *testing.T) {
	t.Helper()
	if err := berth.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := berth.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestAnArtifactIsMountedIntoPodsFromOneCopy(t *testing.T) {
	size := modelSize(t)
	ref, b := putModel(t, startRegistry(t, nil), size)
	before := stored(t)
	cost := weigh(t)
	id := mustPull(t, ref)
	took, peak := cost()
	t.Logf("%d MB came in %s, PSS of berthd %d MB at most", size/1e6, took, peak/1e6)
	if peak > 200e6 {
		t.Errorf("berthd took %d bytes of memory", peak)
	}
	if i := imageStatus(t, ref); i.GetId() != id || id != b.Root.Digest.String() || int64(i.Size) < size || int64(i.Size) > size+4096 {
		t.Errorf("pulled %s, there is %v", id, i)
	}
	var files [][2]uint64
	for name, change := range map[string]func(*cri.PodSandboxConfig){"pod": func(*cri.PodSandboxConfig) {}, "another": func(*cri.PodSandboxConfig) {}, "user namespace": userNS} {
		config := sleeper()
		config.Mounts = []*cri.Mount{from(id, "/model", ""), from(id, "/w.bin", "weights/1.bin")}
		c := runPod(t, own, change).start(config)
		out := c.sh("stat -c '%a %u %s' /model/weights/1.bin /w.bin; cat /model/conf/model.json; touch /model/x 2>&1 || true")
		if want := fmt.Sprintf("444 0 %d\n444 0 %d\n{}touch: /model/x: Read-only file system", size, size); out != want {
			t.Errorf("%s: %q", name, out)
		}
		files = append(files, behind(t, c, "/model/weights/1.bin"), behind(t, c, "/w.bin"))
		m := c.status().Mounts
		if len(m) != 2 || m[1].Image.ImageRef != id || m[1].ImageSubPath != "weights/1.bin" || !m[1].Readonly || m[1].ContainerPath != "/w.bin" {
			t.Errorf("%s: status has %v", name, m)
		}
	}
	for _, f := range files {
		if f != files[0] {
			t.Errorf("copies: %v", files)
		}
	}
	more := stored(t) - before
	t.Logf("%d MB more are on disk; inodes %v", more/1e6, files)
	if more > size+1<<20 { // less where what others have removed goes meanwhile
		t.Errorf("%d bytes more are on disk", more)
	}
	blob, err := os.Stat(filepath.Join(berth.Dir, "data", "images", "blobs", "sha256", b.Layers[0].Digest.Encoded()))
	if err != nil || blob.Sys().(*syscall.Stat_t).Ino != files[0][1] {
		t.Errorf("the blob is another file: %v", err)
	}
	config := sh("true")
	config.Image.Image = id
	if err := runPod(t).createError(config); code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "image volume") {
		t.Errorf("a container of an artifact: %v", err)
	}
}

func TestImageVolumesOutliveTheirImageAndTheDaemon(t *testing.T) {
	ref := startRegistry(t, nil).Put("app", "1", shipped(t))
	id := mustPull(t, ref)
	p := runPod(t)
	config := sleeper()
	config.Mounts = []*cri.Mount{from(id, "/a", ""), from(ref, "/b", "mark"), from(id, "/c", "bin")}
	c := p.start(config)
	removeImage(t, id)
	restart(t)
	if out := c.sh("cut -c1-5 /a/mark /b; test -x /c/busybox && /c/busybox echo runs"); out != "mark \nmark \nruns" {
		t.Errorf("%q", out)
	}
	for n, m := range c.status().Mounts {
		if m.GetImage().GetImageRef() != id || m.GetImage().GetImage() != config.Mounts[n].Image.Image {
			t.Errorf("status has %v", m)
		}
	}
	if _, err := berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(berth.State(), "volumes")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestImageVolumesThatCannotBeMounted(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{
			{Name: "abs", Type: images.Symlink, Link: "/etc"}, {Name: "up", Type: images.Symlink, Link: "../../../../../../etc"},
		}})
	})
	p := runPod(t)
	for _, m := range []*cri.Mount{
		from("e2e.local/absent:1", "/m", ""), from(name, "/m", "missing"), from(name, "/m", "abs/passwd"), from(name, "/m", "up/passwd"),
		from(name, "/m", "../etc"), from(name, "/m", "etc/passwd/x"), from("", "/m", "x"),
	} {
		config := sh("true")
		config.Mounts = []*cri.Mount{from(name, "/ok", ""), m}
		_, text, _ := strings.Cut(fmt.Sprint(p.createError(config)), "desc = ")
		if !strings.HasPrefix(text, crierrors.ErrImageVolumeMountFailed.Error()+": ") || !strings.Contains(text, "at /m: ") {
			t.Errorf("%v: %s", m, text)
		}
	}
	if left, err := os.ReadDir(filepath.Join(berth.State(), "volumes")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestImageVolumesShowTheOwnersOfAUserNamespace(t *testing.T) {
	name := variant(t, func(i *images.Image) {
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "srv/file", UID: 5, GID: 6}}})
	})
	config := sh("stat -c %u:%g /m /m/srv/file /m/bin/busybox /f")
	config.Mounts = []*cri.Mount{from(name, "/m", ""), from(name, "/f", "srv/file")}
	if out := runPod(t, own, userNS).start(config).output(); out != "0:0\n5:6\n0:0\n5:6" {
		t.Errorf("%q", out)
	}
}

// TestAnImageHasOneIDEverywhere compares all that CRI says of one image.
func TestAnImageHasOneIDEverywhere(t *testing.T) {
	s := startRegistry(t, nil)
	tag := s.Put("one", "1", shipped(t))
	model, _ := putModel(t, s, 10)
	id, modelID := mustPull(t, tag), mustPull(t, model)
	config := sleeper()
	config.Image = &cri.ImageSpec{Image: id, UserSpecifiedImage: tag}
	config.Mounts = []*cri.Mount{from(modelID, "/model", "")}
	c := runPod(t).start(config)
	st := c.status()
	if st.Image.UserSpecifiedImage != tag || st.Image.Image != tag || st.ImageRef != id || st.ImageId != id {
		t.Errorf("status has %v", st)
	}
	all, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: c.id}})
	if err != nil || len(all.Containers) != 1 || all.Containers[0].ImageId != id || all.Containers[0].ImageRef != id {
		t.Errorf("list has %v, %v", all, err)
	}
	for ref, want := range map[string]string{tag: id, id: id, model: modelID, modelID: modelID, st.Mounts[0].Image.ImageRef: modelID} {
		i := imageStatus(t, ref)
		if i.GetId() != want || i.GetSpec().GetImage() != want || len(i.RepoTags) != 1 || len(i.RepoDigests) != 1 {
			t.Errorf("status of %s: %v", ref, i)
		}
	}
	listed, streamed := map[string]bool{}, map[string]bool{}
	list, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Images {
		listed[i.Id] = true
	}
	stream, err := berth.Images.StreamImages(t.Context(), &cri.StreamImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for r, err := stream.Recv(); err == nil; r, err = stream.Recv() {
		if len(r.Images) == 0 {
			t.Error("a message without images")
		}
		for _, i := range r.Images {
			if streamed[i.Id] {
				t.Errorf("%s comes twice", i.Id)
			}
			streamed[i.Id] = true
		}
	}
	if !listed[id] || !listed[modelID] || len(listed) != len(streamed) {
		t.Errorf("listed %v, streamed %v", listed, streamed)
	}
}

func TestTheRuntimeHandlerOfAPullIsKept(t *testing.T) {
	ref := startRegistry(t, nil).Put("handled", "1", shipped(t))
	spec := &cri.ImageSpec{Image: ref, RuntimeHandler: "careful"}
	if _, err := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		removeImage(t, ref)
		if _, err := berth.Images.RemoveImage(context.Background(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref, RuntimeHandler: "careful"}}); err != nil {
			t.Error(err)
		}
	})
	restart(t)
	r, err := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
	if err != nil || r.Image.GetSpec().GetRuntimeHandler() != "careful" {
		t.Errorf("status %v, %v", r, err)
	}
	list, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{RuntimeHandler: "careful"}}})
	if err != nil || len(list.Images) != 1 || list.Images[0].Id != r.Image.GetId() {
		t.Errorf("list %v, %v", list, err)
	}
	mustPull(t, ref)
	if got := imageStatus(t, ref).GetSpec().GetRuntimeHandler(); got != "" {
		t.Errorf("after a pull for the default: %q", got)
	}
	spec.RuntimeHandler = "unknown"
	_, pullErr := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{Image: spec})
	_, statusErr := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
	_, listErr := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec}})
	for _, err := range []error{pullErr, statusErr, listErr} {
		if code(err) != codes.NotFound {
			t.Errorf("unknown handler: %v", err)
		}
	}
}

func TestPinnedImagesAreMarkedAndCanBeRemoved(t *testing.T) {
	ref := startRegistry(t, nil).Put("pinned/app", "1", shipped(t))
	id := mustPull(t, ref)
	if !imageStatus(t, ref).GetPinned() || imageStatus(t, busybox).GetPinned() {
		t.Error("pinned is not what the configuration says")
	}
	removeImage(t, id)
	if imageStatus(t, ref) != nil {
		t.Error("it is still there")
	}
}
