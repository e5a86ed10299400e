package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// shipped is busybox with a layer that no other image has, as blobs.
func shipped(t *testing.T, change ...func(*images.Image)) *images.Built {
	t.Helper()
	i, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("mark %d", imageNumber.Add(1))
	i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "mark", Data: []byte(mark)}}})
	for _, f := range change {
		f(&i)
	}
	b, err := i.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func startRegistry(t *testing.T, r *registry.Registry) *registry.Server {
	t.Helper()
	s := registry.Start(r)
	t.Cleanup(s.Close)
	return s
}

func pull(ctx context.Context, ref string, auth *cri.AuthConfig) (string, error) {
	r, err := berth.Images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}, Auth: auth})
	return r.GetImageRef(), err
}

func mustPull(t *testing.T, ref string) string {
	t.Helper()
	id, err := pull(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, id) })
	return id
}

func removeImage(t *testing.T, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := berth.Images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}}); err != nil {
		t.Error(err)
	}
}

// imageStatus is nil for an image that is not there.
func imageStatus(t *testing.T, ref string) *cri.Image {
	t.Helper()
	r, err := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Image
}

func TestAnImageIsTheSameByEachOfItsNames(t *testing.T) {
	s := startRegistry(t, nil)
	b := shipped(t, func(i *images.Image) { i.Config.User = "nobody" })
	tag := s.Put("team/app", "v1", b)
	byDigest := s.Host + "/team/app@" + b.Root.Digest.String()
	id := b.Config.String()
	for _, ref := range []string{tag, byDigest, tag + "@" + b.Root.Digest.String()} {
		if got := mustPull(t, ref); got != id {
			t.Errorf("pull of %s: got %s, want %s", ref, got, id)
		}
	}
	for _, ref := range []string{tag, byDigest, id, b.Config.Encoded(), b.Config.Encoded()[:12]} {
		i := imageStatus(t, ref)
		if i.GetId() != id || !slices.Equal(i.GetRepoTags(), []string{tag}) || !slices.Equal(i.GetRepoDigests(), []string{byDigest}) {
			t.Errorf("status of %s: %v", ref, i)
		}
		if i.GetSize() == 0 || i.GetUsername() != "nobody" || i.GetUid() != nil || i.GetPinned() {
			t.Errorf("facts of %s: %v", ref, i)
		}
		r, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: ref}}})
		if err != nil || len(r.Images) != 1 || r.Images[0].Id != id {
			t.Errorf("list of %s: %v, %v", ref, r, err)
		}
	}
	p := runPod(t)
	for _, ref := range []string{tag, byDigest, id} {
		config := sh("cat /mark")
		config.Image = &cri.ImageSpec{Image: ref, UserSpecifiedImage: tag}
		c := p.start(config)
		if out := c.output(); !strings.HasPrefix(out, "mark ") {
			t.Errorf("container of %s: %q", ref, out)
		}
		if st := c.status(); st.ImageRef != id || st.ImageId != id || st.Image.Image != tag {
			t.Errorf("container of %s: %v", ref, st)
		}
	}
}

func TestStatusOfAnImageTellsItsConfig(t *testing.T) {
	s := startRegistry(t, nil)
	ref := s.Put("app", "1", shipped(t, func(i *images.Image) {
		i.Config.User, i.Config.Labels = "1234:5", map[string]string{"of": "the image"}
	}))
	mustPull(t, ref)
	r, err := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}, Verbose: true})
	if err != nil || r.Image.GetUid().GetValue() != 1234 || r.Image.Username != "" {
		t.Fatalf("got %v, %v", r, err)
	}
	if err := wantText(fmt.Sprint(r.Info), "the image"); err != nil {
		t.Error(err)
	}
	if i := imageStatus(t, s.Host+"/none:1"); i != nil {
		t.Errorf("one that is not there: %v", i)
	}
}

func TestATagMovesWithTheRegistry(t *testing.T) {
	s := startRegistry(t, nil)
	first, second := shipped(t), shipped(t)
	ref := s.Put("app", "latest", first)
	old := mustPull(t, ref)
	p := runPod(t)
	config := sh("cat /mark; sleep 1000")
	config.Image.Image = ref
	c := p.start(config)
	s.Put("app", "latest", second)
	now := mustPull(t, strings.TrimSuffix(ref, ":latest"))
	if now == old || imageStatus(t, ref).GetId() != now {
		t.Errorf("the tag names %v, pulled %s", imageStatus(t, ref), now)
	}
	if i := imageStatus(t, old); i == nil || len(i.RepoTags) != 0 || len(i.RepoDigests) != 1 {
		t.Errorf("the old image: %v", i)
	}
	if st := c.status(); st.ImageRef != old {
		t.Errorf("the container's image: %v", st)
	}
}

func TestPullsProveWhoAsks(t *testing.T) {
	const user, secret = "ada", "s3cret:with colon"
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	plain := func() *registry.Registry { return &registry.Registry{Username: user, Password: secret} }
	token := func() *registry.Registry { return &registry.Registry{Username: user, Password: secret, Token: true} }
	for name, c := range map[string]struct {
		registry *registry.Registry
		auth     *cri.AuthConfig
		want     codes.Code
	}{
		"user and password":       {plain(), &cri.AuthConfig{Username: user, Password: secret}, codes.OK},
		"both in one":             {plain(), &cri.AuthConfig{Auth: basic}, codes.OK},
		"by token":                {token(), &cri.AuthConfig{Username: user, Password: secret}, codes.OK},
		"by anybody's token":      {&registry.Registry{Token: true}, nil, codes.OK},
		"by identity token":       {&registry.Registry{Username: user, Token: true, RefreshToken: "refresh"}, &cri.AuthConfig{IdentityToken: "refresh"}, codes.OK},
		"by a token of its own":   {token(), &cri.AuthConfig{RegistryToken: registry.BearerToken}, codes.OK},
		"nobody":                  {plain(), nil, codes.PermissionDenied},
		"nobody by token":         {token(), nil, codes.PermissionDenied},
		"wrong password":          {plain(), &cri.AuthConfig{Username: user, Password: "x"}, codes.PermissionDenied},
		"nonsense":                {plain(), &cri.AuthConfig{Auth: "%%%"}, codes.InvalidArgument},
		"meant for another place": {plain(), &cri.AuthConfig{Username: user, Password: secret, ServerAddress: "https://elsewhere.example/v1/"}, codes.PermissionDenied},
	} {
		s := startRegistry(t, c.registry)
		ref := s.Put("app", "1", shipped(t))
		_, err := pull(t.Context(), ref, c.auth)
		if code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
		if got := imageStatus(t, ref) != nil; got != (c.want == codes.OK) {
			t.Errorf("%s: the image is there: %v", name, got)
		}
		removeImage(t, ref)
	}
}

func TestLayersOfEveryKindAreUnpacked(t *testing.T) {
	s := startRegistry(t, nil)
	for _, docker := range []bool{false, true} {
		for name, compression := range map[string]images.Compression{"gzip": images.Gzip, "zstd": images.Zstd, "plain": images.Plain} {
			ref := s.Put("kinds", name, shipped(t, func(i *images.Image) {
				i.Docker = docker
				for n := range i.Layers {
					i.Layers[n].Compression = compression
				}
				i.Layers = append(i.Layers,
					images.Layer{Compression: compression, Files: []images.File{
						{Name: "d/", Mode: 0o2750, UID: 3, GID: 4},
						{Name: "d/below", Data: []byte("below\n")},
						{Name: "gone", Data: []byte("x")},
						{Name: "opaque/", Mode: 0o755},
						{Name: "opaque/old", Data: []byte("x")},
					}},
					images.Layer{Compression: compression, Files: []images.File{
						{Name: "d/above", Type: images.Hardlink, Link: "d/below"},
						{Name: ".wh.gone"},
						{Name: "opaque/", Mode: 0o755},
						{Name: "opaque/.wh..wh..opq"},
						{Name: "opaque/new", Data: []byte("x")},
					}})
			}))
			mustPull(t, ref)
			config := sh("stat -c '%u:%g %a' /d; cat /d/above; ls /opaque; ls /gone 2>&1 | grep -c 'No such'")
			config.Image.Image = ref
			if out := runPod(t).start(config).output(); out != "3:4 2750\nbelow\nnew\n1" {
				t.Errorf("%s, Docker's types %v: %q", name, docker, out)
			}
		}
	}
}

func TestAnIndexGivesThisMachinesImage(t *testing.T) {
	build := func(text, os, arch string) images.Image {
		i, err := images.Busybox()
		if err != nil {
			t.Fatal(err)
		}
		i.Platform = ispec.Platform{OS: os, Architecture: arch}
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "platform", Data: []byte(text)}}})
		return i
	}
	mine, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	mine.Layers = append(mine.Layers, images.Layer{Files: []images.File{{Name: "platform", Data: []byte("mine")}}})
	s := startRegistry(t, nil)
	for _, docker := range []bool{false, true} {
		mine.Docker = docker
		b, err := images.BuildIndex(build("windows", "windows", "amd64"), build("s390x", "linux", "s390x"), mine)
		if err != nil {
			t.Fatal(err)
		}
		ref := s.Put("many", fmt.Sprint(docker), b)
		mustPull(t, ref)
		byDigest := s.Host + "/many@" + b.Root.Digest.String()
		if i := imageStatus(t, ref); !slices.Contains(i.GetRepoDigests(), byDigest) {
			t.Errorf("%v has no digest of the index, %s", i, byDigest)
		}
		config := sh("cat /platform")
		config.Image.Image = byDigest
		if out := runPod(t).start(config).output(); out != "mine" {
			t.Errorf("got %q", out)
		}
	}
	none, err := images.BuildIndex(build("windows", "windows", "amd64"), build("s390x", "linux", "s390x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull(t.Context(), s.Put("many", "none", none), nil); code(err) != codes.NotFound || !strings.Contains(err.Error(), "linux/") {
		t.Errorf("none of them: %v", err)
	}
}

func TestEqualPullsFetchOnce(t *testing.T) {
	s := startRegistry(t, nil)
	b := shipped(t)
	ref := s.Put("app", "1", b)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], err = pull(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Cleanup(func() { removeImage(t, ref) })
	if want := slices.Repeat([]string{b.Config.String()}, len(ids)); !slices.Equal(ids, want) {
		t.Error(cmp.Diff(want, ids))
	}
	if n := s.Requests(http.MethodGet, "/v2/app/blobs/"+b.Layers[1].Digest.String()); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

func TestACancelledPullLeavesNothingAndCanBeRepeated(t *testing.T) {
	b := shipped(t)
	blob := "/blobs/" + b.Layers[1].Digest.String()
	begun, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := startRegistry(t, &registry.Registry{Hook: func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.HasSuffix(q.URL.Path, blob) {
			once.Do(func() { close(begun) })
			select {
			case <-released:
			case <-q.Context().Done():
			}
		}
		return false
	}})
	ref := s.Put("app", "1", b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := pull(ctx, ref, nil)
		failed <- err
	}()
	<-begun
	cancel()
	if err := <-failed; code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	if i := imageStatus(t, ref); i != nil {
		t.Errorf("visible is %v", i)
	}
	close(released)
	mustPull(t, ref)
}

func TestARemovedImageIsGoneButItsContainersRun(t *testing.T) {
	s := startRegistry(t, nil)
	ref := s.Put("app", "1", shipped(t))
	s.Put("app", "2", shipped(t))
	id := mustPull(t, ref)
	if out, err := berth.Berth(t.Context(), "tag", ref, "e2e.local/alias:1"); err != nil {
		t.Fatal(out, err)
	}
	config := sh("cat /mark; exec sleep 1000")
	config.Image.Image = id
	p := runPod(t)
	c := p.start(config)
	for range 2 {
		removeImage(t, ref)
	}
	for _, name := range []string{ref, "e2e.local/alias:1", id} {
		if i := imageStatus(t, name); i != nil {
			t.Errorf("%s is still %v", name, i)
		}
	}
	if out := c.sh("cat /mark; ls /bin/sh"); !strings.HasPrefix(out, "mark ") {
		t.Errorf("the container says %q", out)
	}
	if st := c.status(); st.ImageRef != id {
		t.Errorf("the container's image: %v", st)
	}
	other := sh("true")
	other.Image.Image = id
	if err := p.createError(other); code(err) != codes.NotFound {
		t.Errorf("another container of it: %v", err)
	}
}

func TestImagesTakeSpaceUntilTheyAreRemoved(t *testing.T) {
	used := func() uint64 {
		r, err := berth.Images.ImageFsInfo(t.Context(), &cri.ImageFsInfoRequest{})
		if err != nil || len(r.ImageFilesystems) != 1 || len(r.ContainerFilesystems) != 1 {
			t.Fatal(r, err)
		}
		f := r.ImageFilesystems[0]
		if f.Timestamp == 0 || !strings.HasPrefix(f.FsId.Mountpoint, berth.Dir) || f.InodesUsed.Value == 0 {
			t.Errorf("got %v", f)
		}
		return f.UsedBytes.Value
	}
	const large = 8 << 20
	s := startRegistry(t, nil)
	ref := s.Put("app", "1", shipped(t, func(i *images.Image) {
		i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "large", Data: make([]byte, large)}}})
	}))
	// Layers that containers of removed images used go with the next removal.
	removeImage(t, mustPull(t, s.Put("other", "1", shipped(t))))
	before := used()
	id := mustPull(t, ref)
	if with := used(); with < before+large || imageStatus(t, id).Size < large {
		t.Errorf("used %d before, %d with %v", before, with, imageStatus(t, id))
	}
	removeImage(t, id)
	eventually(t, func() error {
		if now := used(); now != before {
			return fmt.Errorf("used %d before, %d after", before, now)
		}
		return nil
	})
}
