package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// chunkBytes is how much of an archive one message carries.
const chunkBytes = 1 << 20

// progressQueue bounds the progress messages that wait for a slow client; what
// does not fit is dropped, since newer ones tell more.
const progressQueue = 256

// Pull brings an image here and reports progress. The pull never waits for the
// client to read.
func (s *Server) Pull(r *apiv1.PullRequest, stream grpc.ServerStreamingServer[apiv1.PullResponse]) error {
	if r.Image == "" {
		return fmt.Errorf("pull: no image is named: %w", errs.Invalid)
	}
	var image *apiv1.Image
	err := progressing(func(p *apiv1.PullProgress) { _ = stream.Send(&apiv1.PullResponse{Progress: p}) }, func(progress func(*apiv1.PullProgress)) (err error) {
		image, err = s.deps.Images.Pull(stream.Context(), r, progress)
		return err
	})
	if err != nil {
		return err
	}
	return stream.Send(&apiv1.PullResponse{Image: image})
}

// Push uploads an image and reports progress, as Pull does.
func (s *Server) Push(r *apiv1.PushRequest, stream grpc.ServerStreamingServer[apiv1.PushResponse]) error {
	if r.Image == "" {
		return fmt.Errorf("push: no image is named: %w", errs.Invalid)
	}
	digest := ""
	err := progressing(func(p *apiv1.PullProgress) { _ = stream.Send(&apiv1.PushResponse{Progress: p}) }, func(progress func(*apiv1.PullProgress)) (err error) {
		digest, err = s.deps.Images.Push(stream.Context(), r, progress)
		return err
	})
	if err != nil {
		return err
	}
	return stream.Send(&apiv1.PushResponse{Digest: digest})
}

// progressing calls work with what sends progress without waiting for the client. A
// client that went away also cancelled the work's context.
func progressing(send func(*apiv1.PullProgress), work func(progress func(*apiv1.PullProgress)) error) error {
	queue := make(chan *apiv1.PullProgress, progressQueue)
	var sender sync.WaitGroup
	sender.Go(func() {
		for p := range queue {
			send(p)
		}
	})
	err := work(func(p *apiv1.PullProgress) {
		select {
		case queue <- p:
		default:
		}
	})
	close(queue)
	sender.Wait()
	return err
}

// Load reads an archive from the stream. The archive passes through a pipe, so
// that the reader takes it at its own pace.
func (s *Server) Load(stream grpc.ClientStreamingServer[apiv1.LoadRequest, apiv1.LoadResponse]) error {
	pr, pw := io.Pipe()
	// The feeder ends with the stream at the latest, which ends when this
	// handler returns. Waiting for it here would let a client that sends on
	// after an error hold the handler.
	go func() { pw.CloseWithError(feed(pw, stream)) }()
	images, err := s.deps.Images.Load(stream.Context(), pr)
	pr.Close()
	if err != nil {
		return err
	}
	return stream.SendAndClose(&apiv1.LoadResponse{Images: images})
}

// feed copies the stream's data to w until the client has sent all.
func feed(w io.Writer, stream grpc.ClientStreamingServer[apiv1.LoadRequest, apiv1.LoadResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive from the client: %w", err)
		}
		if _, err := w.Write(r.Data); err != nil {
			return err
		}
	}
}

// Save writes images as one archive to the stream.
func (s *Server) Save(r *apiv1.SaveRequest, stream grpc.ServerStreamingServer[apiv1.SaveResponse]) error {
	if len(r.Images) == 0 {
		return fmt.Errorf("save: no image is named: %w", errs.Invalid)
	}
	pr, pw := io.Pipe()
	var writer sync.WaitGroup
	writer.Go(func() {
		pw.CloseWithError(s.deps.Images.Save(stream.Context(), r, pw))
	})
	err := sendAll(stream, pr)
	pr.CloseWithError(err) // a writer that has not ended yet learns why
	writer.Wait()
	return err
}

func sendAll(stream grpc.ServerStreamingServer[apiv1.SaveResponse], r io.Reader) error {
	buf := make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := stream.Send(&apiv1.SaveResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Tag gives an image one more name.
func (s *Server) Tag(ctx context.Context, r *apiv1.TagRequest) (*apiv1.TagResponse, error) {
	return &apiv1.TagResponse{}, s.deps.Images.Tag(ctx, r.Source, r.Target)
}

// Untag takes a name from an image.
func (s *Server) Untag(ctx context.Context, r *apiv1.UntagRequest) (*apiv1.UntagResponse, error) {
	return &apiv1.UntagResponse{}, s.deps.Images.Untag(ctx, r.Image)
}
