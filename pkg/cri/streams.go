package cri

import (
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxStreamed is how many bytes one message of a stream may have before the next
// begins: far below what kubelet takes.
const maxStreamed = 1 << 20

// inParts sends a list as CRI wants its streams: each item once, at least one in
// each message, and no message for an empty list.
func inParts[T proto.Message](all []T, send func(part []T) error) error {
	begin, size := 0, 0
	for i, item := range all {
		size += proto.Size(item)
		if size < maxStreamed && i < len(all)-1 {
			continue
		}
		if err := send(all[begin : i+1]); err != nil {
			return err
		}
		begin, size = i+1, 0
	}
	return nil
}

// StreamPodSandboxes is ListPodSandbox for any number of pods.
func (p *Pods) StreamPodSandboxes(r *runtimeapi.StreamPodSandboxesRequest, stream runtimeapi.RuntimeService_StreamPodSandboxesServer) error {
	return inParts(p.filtered(r.GetFilter()), func(part []*runtimeapi.PodSandbox) error {
		return stream.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: part})
	})
}

// StreamContainers is ListContainers for any number of containers.
func (c *Containers) StreamContainers(r *runtimeapi.StreamContainersRequest, stream runtimeapi.RuntimeService_StreamContainersServer) error {
	return inParts(c.filtered(r.GetFilter()), func(part []*runtimeapi.Container) error {
		return stream.Send(&runtimeapi.StreamContainersResponse{Containers: part})
	})
}

// StreamImages is ListImages for any number of images.
func (i *Images) StreamImages(r *runtimeapi.StreamImagesRequest, stream runtimeapi.ImageService_StreamImagesServer) error {
	all, err := i.filtered(r.GetFilter().GetImage())
	if err != nil {
		return err
	}
	return inParts(all, func(part []*runtimeapi.Image) error {
		return stream.Send(&runtimeapi.StreamImagesResponse{Images: part})
	})
}
