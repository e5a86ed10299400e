// Package admin serves Berth's own small gRPC API (package api/v1), which
// stands beside CRI on the same socket: what people need and CRI has no words
// for.
//
// It is stateless and translates: images go to the image service, signals and
// streams to berth-runtime, manifests to their controller. What it owns on disk
// are two plain trees under the root directory: volumes/NAME, the named volumes
// of `berth run -v`, and logs/UID, the log directories of pods that have no
// kubelet. Its goroutines end with the request that they are for.
package admin

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/session"
)

// Images is what the API needs of the image service; see FromImages.
type Images interface {
	Transfers
	Upkeep
	Tag(ctx context.Context, source, target string) error
	Untag(ctx context.Context, ref string) error
}

// Transfers bring images here and away. Pull and Push call progress from one
// goroutine at a time until they return.
type Transfers interface {
	Pull(ctx context.Context, r *apiv1.PullRequest, progress func(*apiv1.PullProgress)) (*apiv1.Image, error)
	// Push returns the digest of the manifest.
	Push(ctx context.Context, r *apiv1.PushRequest, progress func(*apiv1.PullProgress)) (string, error)
	Load(ctx context.Context, archive io.Reader) ([]*apiv1.Image, error)
	Save(ctx context.Context, r *apiv1.SaveRequest, archive io.Writer) error
}

// Upkeep is about what images take.
type Upkeep interface {
	History(ctx context.Context, ref string) (*apiv1.HistoryResponse, error)
	// Prune calls used for the ids that containers use.
	Prune(ctx context.Context, r *apiv1.PruneImagesRequest, used func() map[string]bool) (*apiv1.PruneImagesResponse, error)
	// Usage tells what images take, of which used are the ids that containers use.
	Usage(ctx context.Context, used map[string]bool) (*apiv1.DiskUsageResponse, error)
}

// Manifests is what the API needs of the manifest controller.
type Manifests interface {
	Apply(ctx context.Context, r *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error)
	Delete(ctx context.Context, r *apiv1.DeleteManifestRequest) (*apiv1.DeleteManifestResponse, error)
	List(ctx context.Context) (*apiv1.ListManifestsResponse, error)
}

// Sessions are streams into containers and pods; nil leaves them out.
type Sessions interface {
	Exec(ctx context.Context, containerID string, cmd []string, s session.Streams) (int32, error)
	Forward(ctx context.Context, podID string, port uint16, stream io.ReadWriteCloser) error
}

// Checker is one store's consistency check.
type Checker struct {
	// Store names it, such as "image".
	Store string
	// Check looks for problems and, with repair, mends what it can.
	Check func(ctx context.Context, repair bool) ([]Problem, error)
	// Verify reads every byte that the store keeps again, and calls progress from
	// one goroutine. Nil: the store keeps nothing that can be read again.
	Verify func(ctx context.Context, repair bool, progress func(Progress)) ([]Problem, error)
}

// Progress is how far a Verify is.
type Progress struct {
	Object      string // that is read
	Done, Total int64  // bytes
}

// Problem is one thing that a check found.
type Problem struct {
	Object, What string
	Repaired     bool
}

// Fact is one line that `berth info` shows.
type Fact struct{ Name, Value string }

// Deps is all that a Server needs. Manifests and Sessions may be nil: their calls
// are then answered errs.Unsupported.
type Deps struct {
	Version   string
	Started   time.Time
	Root      string
	State     string
	Runtime   runtime.Runtime
	Images    Images
	Manifests Manifests
	Sessions  Sessions
	Checkers  []Checker
	// Containers lists what uses images and volumes, with what each has written
	// where sizes are asked for; nil means nothing.
	Containers func(ctx context.Context, sizes bool) []Container
	// Stopping is closed when the daemon begins to stop: Wait, Attach, Exec and
	// Forward, which last as long as they like, end then. Nil means never.
	Stopping <-chan struct{}
	// Facts returns more lines for `berth info`; nil means none.
	Facts func(ctx context.Context) []Fact
	// Advice returns what the host lacks; nil means nothing.
	Advice func(ctx context.Context) []Advice
}

// Advice is something that the host lacks: what is wrong, what to do, and whether
// pods do not run without it.
type Advice struct {
	Needed   bool
	What, Do string
}

// Server answers the API. Its methods may be called concurrently.
type Server struct {
	apiv1.UnimplementedAdminServer
	deps Deps
}

// New returns a Server.
func New(d Deps) *Server { return &Server{deps: d} }

// Register adds the API to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) { apiv1.RegisterAdminServer(g, s) }

// Info tells what the daemon is.
func (s *Server) Info(ctx context.Context, r *apiv1.InfoRequest) (*apiv1.InfoResponse, error) {
	info := &apiv1.InfoResponse{
		Version:   s.deps.Version,
		Pid:       int32(os.Getpid()),
		StartedAt: s.deps.Started.UnixNano(),
		Root:      s.deps.Root,
		State:     s.deps.State,
		Runtime:   runtimeInfo(ctx, s.deps.Runtime),
	}
	if s.deps.Facts != nil {
		for _, f := range s.deps.Facts(ctx) {
			info.Facts = append(info.Facts, &apiv1.Fact{Name: f.Name, Value: f.Value})
		}
	}
	if r.Advice && s.deps.Advice != nil {
		for _, a := range s.deps.Advice(ctx) {
			info.Advice = append(info.Advice, &apiv1.Advice{Needed: a.Needed, What: a.What, Do: a.Do})
		}
	}
	return info, nil
}

func runtimeInfo(ctx context.Context, r runtime.Runtime) *apiv1.InfoResponse_Runtime {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v, err := r.Version(ctx)
	if err != nil {
		return &apiv1.InfoResponse_Runtime{Error: err.Error()}
	}
	return &apiv1.InfoResponse_Runtime{
		Version:      v.Version,
		AnchorPid:    int32(v.AnchorPID),
		WorkerPid:    int32(v.WorkerPID),
		CgroupDriver: v.CgroupDriver,
		Limits:       v.Limits,
	}
}

// Verify has every store that can read its content again do so. The content is
// read while the client reads what is told of it: one that stops reading waits.
func (s *Server) Verify(r *apiv1.VerifyRequest, stream grpc.ServerStreamingServer[apiv1.VerifyResponse]) error {
	ctx, last := stream.Context(), &apiv1.VerifyResponse{}
	for _, c := range s.deps.Checkers {
		if c.Verify == nil {
			continue
		}
		problems, err := c.Verify(ctx, r.Repair, func(p Progress) {
			// A client that went away also cancelled ctx.
			_ = stream.Send(&apiv1.VerifyResponse{Progress: &apiv1.VerifyProgress{Store: c.Store, Object: p.Object, Done: p.Done, Total: p.Total}})
		})
		last.Problems = append(last.Problems, messages(c.Store, problems, err, "verification")...)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return stream.Send(last)
}

// messages are the problems of one store, the one that it could not go on among
// them.
func messages(store string, problems []Problem, err error, what string) []*apiv1.Problem {
	var out []*apiv1.Problem
	for _, p := range problems {
		out = append(out, &apiv1.Problem{Store: store, Object: p.Object, What: p.What, Repaired: p.Repaired})
	}
	if err != nil {
		out = append(out, &apiv1.Problem{Store: store, What: what + " did not finish: " + err.Error()})
	}
	return out
}

// Check runs every checker; one that cannot run is itself a problem, and the
// others still run.
func (s *Server) Check(ctx context.Context, r *apiv1.CheckRequest) (*apiv1.CheckResponse, error) {
	resp := &apiv1.CheckResponse{}
	for _, c := range s.deps.Checkers {
		problems, err := c.Check(ctx, r.Repair)
		resp.Problems = append(resp.Problems, messages(c.Store, problems, err, "check")...)
	}
	return resp, ctx.Err()
}

// Apply runs the pods of a manifest.
func (s *Server) Apply(ctx context.Context, r *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	if s.deps.Manifests == nil {
		return nil, errNoManifests
	}
	return s.deps.Manifests.Apply(ctx, r)
}

// DeleteManifest ends and removes applied pods.
func (s *Server) DeleteManifest(ctx context.Context, r *apiv1.DeleteManifestRequest) (*apiv1.DeleteManifestResponse, error) {
	if s.deps.Manifests == nil {
		return nil, errNoManifests
	}
	return s.deps.Manifests.Delete(ctx, r)
}

// ListManifests tells how applied pods are.
func (s *Server) ListManifests(ctx context.Context, _ *apiv1.ListManifestsRequest) (*apiv1.ListManifestsResponse, error) {
	if s.deps.Manifests == nil {
		return &apiv1.ListManifestsResponse{}, nil
	}
	return s.deps.Manifests.List(ctx)
}

var errNoManifests = fmt.Errorf("manifests: this daemon runs without their controller: %w", errs.Unsupported)
