// Package cri is CRI's edge: it turns kubelet's calls into calls of the pod,
// container, image and network services, and their answers into CRI's messages.
//
// It keeps no state and decides nothing but what CRI itself decrees: that Stop
// and Remove of what is not there succeed, and how things are named. There is a
// type for each group of RPCs, which can be called in process too. What
// the node cannot do is FailedPrecondition; Unimplemented are checkpoints alone, where
// CRIU does not work. README.md lists all RPCs, and what
// becomes of each field of a request; fields.txt is where to write that.
package cri

import (
	"errors"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Groups are all groups of RPCs.
type Groups struct {
	*Node
	*Pods
	*Containers
	*Stats
	*Events
	*Streams
	Images *Images
}

// Register adds CRI's two services to a gRPC server.
func Register(g grpc.ServiceRegistrar, all Groups) {
	runtimeapi.RegisterRuntimeServiceServer(g, runtimeService{Groups: all})
	runtimeapi.RegisterImageServiceServer(g, imageService{Images: all.Images})
}

// runtimeService puts the groups together. What none of them has is found a level
// deeper than what they have.
type runtimeService struct {
	Groups
	noRuntime
}

type noRuntime struct{ deeper }

type deeper struct {
	runtimeapi.UnimplementedRuntimeServiceServer
}

type imageService struct {
	noImages
	*Images
}

type noImages struct {
	runtimeapi.UnimplementedImageServiceServer
}

// idempotent makes success of the absence of what was to be stopped or removed.
// Where it is still there, something that the operation needs is missing: that
// stays an error, and loses its kind, which kubelet takes to mean that the object
// is gone.
func idempotent(err error, missing bool) error {
	switch {
	case !errors.Is(err, errs.NotFound):
		return err
	case missing:
		return nil
	}
	return errors.New(err.Error())
}

// notUs takes the kind from the unavailability of what we ask, such as a network
// plugin: as a gRPC code it would mean that we do not answer.
func notUs(err error) error {
	if errors.Is(err, errs.Unavailable) {
		return errors.New(err.Error())
	}
	return err
}

// lacking is for calls that there are, of which one asks for what the node or a
// program of it lacks: Unimplemented would tell the client that there is no such call.
func lacking(err error) error {
	if errs.Of(err) == errs.Unsupported {
		return &errs.Remote{Kind: errs.Conflict, Message: err.Error()}
	}
	return err
}

// missing tells whether a look-up found nothing.
func missing[T any](_ T, err error) bool { return errors.Is(err, errs.NotFound) }
