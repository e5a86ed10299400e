// Package edge is where gRPC begins and ends: the server with its interceptors
// and the one place that knows status codes.
//
// Each failed request is logged here once, with its id and duration; the
// packages below return errors and do not log them. A panic in a handler
// becomes an Internal error and a log line with the stack, never the end of
// the daemon. At log level 1 each request that changes something is logged with
// who made it and what it is about.
package edge

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/trim"
)

// maxMessageBytes is what kubelet's own client takes and sends.
const maxMessageBytes = 16 << 20

// Observer is told of requests.
type Observer interface {
	// Request tells that a request begins. header returns its metadata, "" for
	// what it has not. It returns the request's context, and what is called at the
	// end with the name of gRPC's code.
	Request(ctx context.Context, method string, header func(key string) string) (context.Context, func(code string))
}

// NewServer returns a gRPC server with Berth's interceptors. o may be nil.
func NewServer(o Observer) *grpc.Server {
	s := &interceptor{observer: o}
	return grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
}

// interceptor wraps every call. requests numbers them for the log.
type interceptor struct {
	observer Observer
	requests atomic.Uint64
	trimmer  trim.Trimmer
}

func (s *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	ctx, done := s.begin(ctx, info.FullMethod)
	audit(ctx, info.FullMethod, req)
	defer func() { err = done(recover(), err) }()
	return handle(ctx, req)
}

func (s *interceptor) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	ctx, done := s.begin(stream.Context(), info.FullMethod)
	audit(ctx, info.FullMethod, nil)
	defer func() { err = done(recover(), err) }()
	return handle(srv, &contextStream{stream, ctx})
}

// begin gives the request its logger and returns what ends it: from a recovered
// panic, if any, and the handler's error to the status that the client sees.
func (s *interceptor) begin(ctx context.Context, method string) (context.Context, func(any, error) error) {
	start := time.Now()
	observed := func(string) {}
	if s.observer != nil {
		ctx, observed = s.observer.Request(ctx, method, header(ctx))
	}
	log := klog.LoggerWithValues(klog.FromContext(ctx), "request", s.requests.Add(1), "method", method)
	return klog.NewContext(ctx, log), func(panicked any, err error) error {
		s.trimmer.Touch()
		if panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
			log.Error(err, "Request panicked", "stack", string(debug.Stack()))
		}
		if err != nil {
			logFailure(log, err, time.Since(start))
			err = Status(err)
		} else {
			log.V(2).Info("Request done", "took", time.Since(start))
		}
		observed(status.Code(err).String())
		return err
	}
}

// header reads a request's metadata.
func header(ctx context.Context) func(key string) string {
	return func(key string) string {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
}

// logFailure keeps what an operator would not act on at a lower level: objects
// that are gone, programs that an image does not have, and callers that went away.
func logFailure(log klog.Logger, err error, took time.Duration) {
	if k := errs.Of(err); k == errs.NotFound || k == errs.Unsupported || k == errs.NoProgram || errors.Is(err, context.Canceled) {
		log.V(2).Info("Request failed", "err", err, "took", took)
		return
	}
	log.Error(err, "Request failed", "took", took)
}

type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *contextStream) Context() context.Context { return s.ctx }

// statusCodes maps error kinds to gRPC codes.
var statusCodes = map[errs.Kind]codes.Code{
	errs.NotFound:     codes.NotFound,
	errs.Exists:       codes.AlreadyExists,
	errs.Invalid:      codes.InvalidArgument,
	errs.Conflict:     codes.FailedPrecondition,
	errs.Unavailable:  codes.Unavailable,
	errs.Unsupported:  codes.Unimplemented,
	errs.Timeout:      codes.DeadlineExceeded,
	errs.Denied:       codes.PermissionDenied,
	errs.Exhausted:    codes.ResourceExhausted,
	errs.NoProgram:    codes.InvalidArgument,
	errs.NoExecutable: codes.InvalidArgument,
}

// domain is that of the ErrorInfo in statuses, whose reason is a kind's words;
// pkg/client has the same.
const domain = "berth"

// Status turns an error into the gRPC status with its kind's code. An error
// that is a status already stays; one without a kind is Unknown, as gRPC has it.
// The status names kinds that have no code of their own.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	code, kind := codes.Unknown, errs.Of(err)
	if c, ok := statusCodes[kind]; ok {
		code = c
	} else if errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	s := status.New(code, err.Error())
	if kind == errs.NoProgram || kind == errs.NoExecutable {
		if named, err := s.WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: string(kind)}); err == nil {
			s = named
		}
	}
	return s.Err()
}
