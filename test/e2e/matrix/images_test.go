package matrix

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// hub is where images are pulled from.
var hub = sync.OnceValue(func() *registry.Server { return registry.Start(nil) })

// published puts a small image into the registry that is like no other.
func published(t *testing.T) (ref string, b *images.Built) {
	t.Helper()
	n := number.Add(1)
	i := images.Image{Layers: []images.Layer{{Files: []images.File{{Name: "mark", Data: fmt.Append(nil, "image ", n)}}}}}
	b, err := i.Build()
	must(t, err)
	t.Cleanup(func() { removeImage(t, b) })
	return hub().Put("matrix/app", fmt.Sprint("v", n), b), b
}

func removeImage(t *testing.T, b *images.Built) {
	_, err := berth.Images.RemoveImage(context.Background(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: b.Config.String()}})
	if err != nil {
		t.Error(err)
	}
}

func here(t *testing.T, ref string) bool {
	t.Helper()
	r, err := berth.Images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
	must(t, err)
	return r.Image != nil
}

var imageRows = map[string]row{
	"PullImage": {make: func(t *testing.T) call {
		ref, b := published(t)
		return call{request: &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}}, effect: func(t *testing.T, replies []reply) {
			for _, r := range replies {
				if got := the[*cri.PullImageResponse](r).ImageRef; got != b.Config.String() {
					t.Errorf("got %s, want %s", got, b.Config)
				}
			}
			if !here(t, ref) {
				t.Error("it is not here")
			}
		}, once: func(t *testing.T) {
			if n := hub().Requests("GET", "/v2/matrix/app/blobs/"+b.Layers[0].Digest.String()); n != 1 {
				t.Errorf("its layer was asked for %d times", n)
			}
		}}
	}, wrong: slices.Concat(refs(codes.InvalidArgument, func(r *cri.PullImageRequest, ref string) { r.Image.Image = ref }), []wrong{
		bad("nothing", codes.InvalidArgument, func(r *cri.PullImageRequest) { r.Image = nil }),
		bad("no name", codes.InvalidArgument, func(r *cri.PullImageRequest) { r.Image.Image = "" }),
		bad("an image that is not there", codes.NotFound, func(r *cri.PullImageRequest) { r.Image.Image = hub().Host + "/matrix/none:1" }),
		bad("an unknown handler", codes.NotFound, func(r *cri.PullImageRequest) { r.Image.RuntimeHandler = "kata" }),
		bad("credentials that are none", codes.InvalidArgument, func(r *cri.PullImageRequest) { r.Auth = &cri.AuthConfig{Auth: "%%%"} }),
	})},
	"RemoveImage": {make: func(t *testing.T) call {
		ref, _ := published(t)
		_, err := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}})
		must(t, err)
		return call{request: &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}}, effect: func(t *testing.T, _ []reply) {
			if here(t, ref) {
				t.Error("it is here")
			}
		}}
	}, wrong: slices.Concat(refs(codes.InvalidArgument, func(r *cri.RemoveImageRequest, ref string) { r.Image.Image = ref }), []wrong{
		bad("nothing", codes.InvalidArgument, func(r *cri.RemoveImageRequest) { r.Image = nil }),
		bad("one that is not here", codes.OK, func(r *cri.RemoveImageRequest) { r.Image.Image = "matrix.local/none:1" }),
	})},
	"ListImages": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: busybox}}}, func(t *testing.T, r reply) {
			isBusybox(t, the[*cri.ListImagesResponse](r).Images...)
		}
	}, nil, refs(codes.InvalidArgument, func(r *cri.ListImagesRequest, ref string) { r.Filter.Image.Image = ref })...),
	"StreamImages": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.StreamImagesRequest{Filter: &cri.ImageFilter{Image: &cri.ImageSpec{Image: busybox}}}, func(t *testing.T, r reply) {
			isBusybox(t, the[*cri.StreamImagesResponse](r).Images...)
		}
	}, nil, refs(codes.InvalidArgument, func(r *cri.StreamImagesRequest, ref string) { r.Filter.Image.Image = ref })...),
	"ImageStatus": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: busybox}, Verbose: true}, func(t *testing.T, r reply) {
			isBusybox(t, the[*cri.ImageStatusResponse](r).Image)
		}
	}, nil, append(refs(codes.InvalidArgument, func(r *cri.ImageStatusRequest, ref string) { r.Image.Image = ref }),
		bad("nothing", codes.InvalidArgument, func(r *cri.ImageStatusRequest) { r.Image = nil }))...),
	"ImageFsInfo": asks(func(*testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.ImageFsInfoRequest{}, func(t *testing.T, r reply) {
			i := the[*cri.ImageFsInfoResponse](r)
			if len(i.ImageFilesystems) != 1 || len(i.ContainerFilesystems) != 1 || i.ImageFilesystems[0].GetUsedBytes().GetValue() == 0 {
				t.Errorf("got %v", i)
			}
		}
	}, nothingWrong("the request has no fields")),
}

func isBusybox(t *testing.T, all ...*cri.Image) {
	t.Helper()
	if len(all) != 1 || !slices.Equal(all[0].GetRepoTags(), []string{busybox}) {
		t.Errorf("got %v", all)
	}
}

// refs are wrong names of images.
func refs[R proto.Message](code codes.Code, set func(R, string)) (all []wrong) {
	for _, ref := range []string{
		"../../etc/passwd", "app/UPPER:1", "a b", "app:1\n", "app:tag:tag", "app@sha256:12", "app@md5:d41d8cd98f00b204e9800998ecf8427e", "http://host/app", "/app", "app:", "a\x00b", "host:port/app",
	} {
		all = append(all, bad(fmt.Sprintf("the name %q", ref), code, func(r R) { set(r, ref) }))
	}
	return all
}
