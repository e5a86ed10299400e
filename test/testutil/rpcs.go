package testutil

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RPCs are the methods of CRI's services, in its order.
func RPCs() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	services := (&cri.VersionRequest{}).ProtoReflect().Descriptor().ParentFile().Services()
	for s := range services.Len() {
		for m := range services.Get(s).Methods().Len() {
			all = append(all, services.Get(s).Methods().Get(m))
		}
	}
	return all
}
