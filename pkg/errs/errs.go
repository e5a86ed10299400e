// Package errs names the kinds of failure that callers decide upon.
//
// A Kind is itself an error: wrap it with %w and test for it with errors.Is.
// Kinds cross the socket between berthd and berth-runtime by name (Encode,
// Decode), so errors.Is holds on the far side too. The package holds no text
// matching and no transport codes; pkg/edge turns kinds into gRPC codes.
package errs

import (
	"context"
	"errors"
	"syscall"
)

// Kind classifies an error. The zero value is no kind.
type Kind string

// The kinds. A wrapped error carries at most one of them.
const (
	// NotFound says that the named object does not exist.
	NotFound Kind = "not found"
	// Exists says that an object of that name exists already.
	Exists Kind = "already exists"
	// Invalid says that the request cannot be right, whatever the state.
	Invalid Kind = "invalid argument"
	// Conflict says that the object's present state forbids the request.
	Conflict Kind = "conflict"
	// Unavailable says that something needed does not answer; a retry may help.
	Unavailable Kind = "unavailable"
	// Unsupported says that this build, host or configuration cannot do it.
	Unsupported Kind = "not supported"
	// Timeout says that a bound on waiting was reached.
	Timeout Kind = "timed out"
	// Denied says that credentials or policy refuse it.
	Denied Kind = "permission denied"
	// Exhausted says that a resource (disk, memory, addresses) has run out.
	Exhausted Kind = "resource exhausted"
	// NoProgram says that the program to run does not exist.
	NoProgram Kind = "no such program"
	// NoExecutable says that the program to run cannot be executed.
	NoExecutable Kind = "not executable"
)

var kinds = [...]Kind{NotFound, Exists, Invalid, Conflict, Unavailable, Unsupported, Timeout, Denied, Exhausted, NoProgram, NoExecutable}

// Error returns the kind's words.
func (k Kind) Error() string { return string(k) }

// Of returns the kind that err wraps, or "" where it wraps none. A context's
// deadline counts as Timeout, a path that is too long for the kernel as Invalid.
func Of(err error) Kind {
	for _, k := range kinds {
		if errors.Is(err, k) {
			return k
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, syscall.ENAMETOOLONG):
		return Invalid
	}
	return ""
}

// Remote is an error that came from the other process: its text, and the kind
// that it wrapped there.
type Remote struct {
	Kind    Kind   `json:"kind,omitempty"`
	Message string `json:"message"`
}

// Error returns the text as the other process wrote it.
func (e *Remote) Error() string { return e.Message }

// Unwrap returns the kind, so that errors.Is sees it.
func (e *Remote) Unwrap() error {
	if e.Kind == "" {
		return nil
	}
	return e.Kind
}

// Encode turns err into its wire form; nil stays nil.
func Encode(err error) *Remote {
	if err == nil {
		return nil
	}
	return &Remote{Kind: Of(err), Message: err.Error()}
}

// Decode turns a wire form back into an error; nil stays nil. An unknown kind
// of a newer peer is dropped, its text kept.
func Decode(r *Remote) error {
	if r == nil {
		return nil
	}
	for _, k := range kinds {
		if r.Kind == k {
			return r
		}
	}
	return &Remote{Message: r.Message}
}
