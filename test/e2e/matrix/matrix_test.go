package matrix

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/berth-run/berth/test/testutil"
)

// row is what is particular to one RPC.
type row struct {
	// make prepares what the call needs and returns the call.
	make func(t *testing.T) call
	// wrong are requests to refuse.
	wrong []wrong
	// answers is the code of the right call: OK, unless the node cannot do it.
	answers codes.Code
	// without has the cases that there are not, each with its reason.
	without map[kind]string
}

// kind is one of the ways in which each RPC is tested.
type kind string

const (
	success    kind = "success"
	wrongInput kind = "wrong input"
	retry      kind = "retry"
	duplicates kind = "concurrent duplicates"
	cancelled  kind = "cancel"
	restart    kind = "daemon restart"
)

// wrong is a change that makes a request wrong. The code is its answer.
type wrong struct {
	what   string
	code   codes.Code
	change func(*testing.T, proto.Message)
}

func bad[R proto.Message](what string, code codes.Code, change func(R)) wrong {
	return wrong{what, code, func(_ *testing.T, m proto.Message) { change(m.(R)) }}
}

func TestEachRPCHasARowWithAllCases(t *testing.T) {
	left := rows()
	for _, m := range testutil.RPCs() {
		r, ok := left[string(m.Name())]
		delete(left, string(m.Name()))
		if !ok {
			t.Errorf("%s has no row", m.Name())
			continue
		}
		if reason := r.without[wrongInput]; (reason == "") != (len(r.wrong) > 0) {
			t.Errorf("%s: %d wrong requests, and without them because %q", m.Name(), len(r.wrong), reason)
		}
		for k, reason := range r.without {
			if reason == "" {
				t.Errorf("%s: no reason why there is no %s", m.Name(), k)
			}
		}
	}
	for name := range left {
		t.Errorf("CRI has no %s", name)
	}
}

// each runs f for each RPC that has a kind of case, at once where parallel.
func each(t *testing.T, k kind, parallel bool, f func(t *testing.T, m protoreflect.MethodDescriptor, r row)) {
	t.Helper()
	all := rows()
	for _, m := range testutil.RPCs() {
		r := all[string(m.Name())]
		if r.without[k] != "" {
			continue
		}
		t.Run(string(m.Name()), func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			f(t, m, r)
		})
	}
}

// expect fails the test unless an error has a code, and tells whether that is OK.
func expect(t *testing.T, what string, err error, want codes.Code) bool {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
	return err == nil
}

func TestCallsMayBeRepeatedAtOnceAndGivenUp(t *testing.T) {
	t.Run("once", func(t *testing.T) { // what is kept, such as connections, is there before anything is counted
		all := rows()
		for _, m := range testutil.RPCs() {
			if m.Name() == "PullImage" || m.Name() == "ListPodSandboxMetrics" {
				all[string(m.Name())].atOnce(t, m)
			}
		}
	})
	before := taken(t)
	t.Run("rows", func(t *testing.T) {
		each(t, success, true, func(t *testing.T, m protoreflect.MethodDescriptor, r row) {
			took := r.succeeds(t, m)
			for k, test := range map[kind]func(*testing.T){
				duplicates: func(t *testing.T) { r.atOnce(t, m) },
				cancelled:  func(t *testing.T) { r.givenUp(t, m, took) },
			} {
				if r.without[k] == "" {
					t.Run(string(k), test)
				}
			}
		})
	})
	eventually(t, func() error { return taken(t).more(before) })
}

// succeeds is the cases success and retry. It returns how long a call takes.
func (r row) succeeds(t *testing.T, m protoreflect.MethodDescriptor) time.Duration {
	c := r.make(t)
	begun := time.Now()
	first, err := c.do(t.Context(), m)
	took := time.Since(begun)
	if expect(t, "first", err, r.answers) {
		c.effect(t, []reply{first})
	}
	if r.without[retry] == "" {
		second, err := c.do(t.Context(), m)
		if expect(t, "again", err, r.answers) {
			c.effect(t, []reply{first, second})
		}
	}
	return took
}

func (r row) atOnce(t *testing.T, m protoreflect.MethodDescriptor) {
	c := r.make(t)
	replies, failed := make([]reply, 8), make([]error, 8)
	var calls sync.WaitGroup
	for n := range replies {
		calls.Go(func() { replies[n], failed[n] = c.do(t.Context(), m) })
	}
	calls.Wait()
	for n, err := range failed {
		if !expect(t, fmt.Sprint("call ", n), err, r.answers) {
			return
		}
	}
	c.effect(t, replies)
	if c.once != nil {
		c.once(t)
	}
}

// givenUp cancels calls at some moments while they run.
func (r row) givenUp(t *testing.T, m protoreflect.MethodDescriptor, took time.Duration) {
	seed := fnv.New64()
	_, _ = seed.Write([]byte(m.Name())) // never fails
	random := rand.New(rand.NewPCG(seed.Sum64(), 1))
	for range 3 {
		c := r.make(t)
		delay := time.Duration(random.Int64N(int64(took) + 1))
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(delay, cancel)
		given, err := c.do(ctx, m)
		stop.Stop()
		cancel()
		if code := status.Code(err); code != codes.Canceled && code != r.answers {
			t.Errorf("cancelled after %s: %v", delay, err)
		}
		again, err := c.do(t.Context(), m)
		if expect(t, fmt.Sprint("after one that was cancelled after ", delay), err, r.answers) {
			c.effect(t, with(given, again))
		}
	}
}

// with returns the replies that there are.
func with(replies ...reply) (all []reply) {
	for _, r := range replies {
		if r != nil {
			all = append(all, r)
		}
	}
	return all
}

func TestWrongInputIsRefusedAndLeavesNothing(t *testing.T) {
	crowd(t)
	each(t, wrongInput, false, func(t *testing.T, m protoreflect.MethodDescriptor, r row) {
		c := r.make(t)
		before := state(t)
		for _, w := range r.wrong {
			request := proto.Clone(c.request)
			w.change(t, request)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			made, err := call{request: request, enough: c.enough}.do(ctx, m)
			cancel()
			if expect(t, w.what, err, w.code); err == nil {
				takeBack(t, made)
			}
			after := state(t)
			if left := different(before, after); left != nil {
				t.Errorf("%s has changed:\n%s", w.what, strings.Join(left, "\n"))
			}
			before = after
		}
		right, err := c.do(t.Context(), m)
		if expect(t, "the right call afterwards", err, r.answers) {
			c.effect(t, []reply{right})
		}
	})
}

// attempt is a call of one RPC.
type attempt struct {
	row
	call
	method protoreflect.MethodDescriptor
	reply  reply
	err    error
}

func attempts(t *testing.T) (all []*attempt) {
	t.Helper()
	each(t, restart, false, func(_ *testing.T, m protoreflect.MethodDescriptor, r row) {
		all = append(all, &attempt{row: r, call: r.make(t), method: m}) // it lives as long as the whole test
	})
	return all
}

func TestCallsAreKnownToTheNextDaemon(t *testing.T) {
	all := attempts(t)
	for _, a := range all {
		a.reply, a.err = a.do(t.Context(), a.method)
		expect(t, string(a.method.Name()), a.err, a.answers)
	}
	killed(t)
	repeat(t, all)
}

func TestCallsUnderWhichTheDaemonIsKilledMayBeRepeated(t *testing.T) {
	all := attempts(t)
	var calls sync.WaitGroup
	for _, a := range all {
		calls.Go(func() { a.reply, a.err = a.do(t.Context(), a.method) })
	}
	delay := time.NewTimer(15 * time.Millisecond) // in the middle of the most
	<-delay.C
	killed(t)
	calls.Wait()
	for _, a := range all {
		if code := status.Code(a.err); code != codes.Unavailable && code != a.answers {
			t.Errorf("%s, under which berthd was killed: %v", a.method.Name(), a.err)
		}
	}
	repeat(t, all)
}

// repeat makes each call once more.
func repeat(t *testing.T, all []*attempt) {
	t.Helper()
	for _, a := range all {
		t.Run(string(a.method.Name())+" again", func(t *testing.T) {
			again, err := a.do(t.Context(), a.method)
			if expect(t, "again", err, a.answers) {
				a.effect(t, with(a.reply, again))
			}
		})
	}
}
