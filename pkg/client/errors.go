package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berth-run/berth/pkg/errs"
)

// kinds maps gRPC codes back to the kinds that the daemon's edge made them of.
var kinds = map[codes.Code]errs.Kind{
	codes.NotFound:           errs.NotFound,
	codes.AlreadyExists:      errs.Exists,
	codes.InvalidArgument:    errs.Invalid,
	codes.FailedPrecondition: errs.Conflict,
	codes.Unavailable:        errs.Unavailable,
	codes.Unimplemented:      errs.Unsupported,
	codes.DeadlineExceeded:   errs.Timeout,
	codes.PermissionDenied:   errs.Denied,
	codes.Unauthenticated:    errs.Denied,
	codes.ResourceExhausted:  errs.Exhausted,
}

// translate keeps nil, io.EOF and what is no status; a status becomes its
// message and kind, a cancelled call context.Canceled, and a daemon that does
// not answer becomes words on what to do about it.
func (t translator) translate(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok || errors.Is(err, io.EOF) {
		return err
	}
	if s.Code() == codes.Canceled {
		return context.Canceled
	}
	if s.Code() == codes.Unavailable {
		if away := t.away(); away != nil {
			return away
		}
	}
	return &errs.Remote{Kind: kindOf(s), Message: s.Message()}
}

// kindOf returns the kind that a status names, or else that of its code.
func kindOf(s *status.Status) errs.Kind {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == domain {
			return errs.Of(errs.Decode(&errs.Remote{Kind: errs.Kind(info.Reason)}))
		}
	}
	return kinds[s.Code()]
}

// domain is that of the daemon's ErrorInfo; pkg/edge has the same.
const domain = "berth"

// away returns why nobody answers at the socket, or nil where somebody does:
// then "unavailable" is the daemon's own word.
func (t translator) away() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: t.socket})
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fail(errs.Denied, "may not open %s: run it as root, or with sudo", t.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fail(errs.Unavailable, "no daemon answers at %s; start it with: berthd --standalone", t.socket)
	}
	return fmt.Errorf("reach the daemon at %s: %w", t.socket, os.NewSyscallError("connect", err))
}

// fail makes an error of a kind whose text is for a person: the kind's own
// words are not added to it.
func fail(kind errs.Kind, format string, args ...any) error {
	return &errs.Remote{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
