package cri_test

import (
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// kubelet compares the beginning of the text, and of a pull only that of errors
// whose code is Unknown.
func TestTextsBeginWithTheWordsThatKubeletKnows(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	create := func(change func(*runtimeapi.ContainerConfig)) error {
		c := k.containerConfig("c")
		change(c)
		_, err := k.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: c})
		return err
	}
	pull := func(ref string) error {
		_, err := k.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		return err
	}
	want := func(what string, err, word error, code codes.Code) {
		t.Helper()
		if s := status.Convert(err); !strings.HasPrefix(s.Message(), word.Error()+": ") || s.Code() != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // now nobody listens there
	want("a registry that is down", pull(l.Addr().String()+"/app:1"), crierrors.ErrRegistryUnavailable, codes.Unknown)
	want("recursive read-only", create(func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/m", HostPath: k.logs, Readonly: true, RecursiveReadOnly: true}}
	}), crierrors.ErrRROUnsupported, codes.FailedPrecondition)
	k.decide("reject")
	want("a pull", pull(l.Addr().String()+"/app:1"), crierrors.ErrSignatureValidationFailed, codes.Unknown)
	want("a container", create(func(*runtimeapi.ContainerConfig) {}), crierrors.ErrSignatureValidationFailed, codes.Unknown)
	k.decide("insecureAcceptAnything")
	if err := create(func(*runtimeapi.ContainerConfig) {}); err != nil {
		t.Errorf("accepted: %v", err)
	}
}
