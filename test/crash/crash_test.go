package crash

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/test/testutil"
)

var rounds = flag.Int("rounds", 3, "how often each victim dies in each operation")

// stage is what all rounds share.
type stage struct {
	pods  [2]*pod // one in a cgroup of Berth's, one in kubelet's
	image string
	rand  *rand.Rand
	// counter writes a numbered line each millisecond.
	counter *container
	counted int // lines that have been checked
}

func TestNothingIsLostWhenSomebodyDies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &stage{rand: rand.New(rand.NewPCG(seed, 0)), image: serveSlowly(t)}
	for range s.pods {
		p := started(t, cri.NamespaceMode_NODE)
		s.pods[number.Load()%2] = p
	}
	s.counter = s.pods[0].script(counter).begin(t)
	s.measure(t, operations[0]) // the first pod makes the network, which stays
	before := take(t)
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			usual := s.measure(t, op)
			for _, v := range victims {
				t.Run(v.name, func(t *testing.T) {
					for range *rounds {
						s.round(t, op, v, usual)
					}
				})
			}
			wantNothing(t, before)
		})
	}
	s.endCounter(t)
}

// measure returns how long the operation takes undisturbed.
func (s *stage) measure(t *testing.T, op operation) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 3 {
		c := op.ready(t, s)
		began := time.Now()
		must(t, c.do(t.Context()))
		took = append(took, time.Since(began))
		c.verify()
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// round kills v at some moment of op, and looks at what that did.
func (s *stage) round(t *testing.T, op operation, v victim, usual time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(30*time.Second))
	defer cancel()
	c := op.ready(t, s)
	target, err := v.find()
	must(t, err)
	after := time.Duration(s.rand.Int64N(int64(usual + usual/8)))
	// It ends at about the time of the death: before, after, or meanwhile.
	mortal := s.pods[1].script(fmt.Sprintf("echo last words; nap %.3f; exit 23", s.rand.Float64()*2*usual.Seconds())).begin(t)

	killed := make(chan error, 1)
	time.AfterFunc(after, func() { killed <- target.kill() })
	first := c.do(ctx)
	must(t, <-killed)
	must(t, target.replace())
	t.Logf("killed after %s of %s, and the call said: %v", after, usual, first)
	if first != nil && !v.daemon && !c.mayFail {
		t.Errorf("%s failed, although berthd lived: %v", op.name, first)
	}
	if err := c.do(ctx); err != nil {
		t.Fatalf("the same %s again: %v", op.name, err)
	}
	c.verify()
	mortal.awaitExit(t, 23)
	wantLines(t, mortal, "last words")
	must(t, mortal.remove(ctx))
	s.checkCounter(t)
	if out, err := berth.Berth(ctx, "check"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// counter writes until it is asked to end, and then how many lines it wrote.
const counter = `i=0; trap 'echo end $i; exit 7' TERM; while :; do echo $i; i=$((i+1)); nap 0.001; done`

// checkCounter wants the counter to run, and its log to be without gaps.
func (s *stage) checkCounter(t *testing.T) {
	t.Helper()
	s.counter.await(t, cri.ContainerState_CONTAINER_RUNNING)
	had := s.counted
	eventually(t, func() error {
		lines := s.counter.lines(t)
		for s.counted < len(lines) {
			if lines[s.counted] != strconv.Itoa(s.counted) {
				t.Fatalf("line %d of the counter is %q", s.counted, lines[s.counted])
			}
			s.counted++
		}
		if s.counted <= had {
			return fmt.Errorf("the counter has not written since its line %d", had)
		}
		return nil
	})
}

// endCounter ends it: what it wrote last is in its log, too. It has outlived every
// process that its end could have been told to, so that the kernel has to know.
func (s *stage) endCounter(t *testing.T) {
	t.Helper()
	s.checkCounter(t)
	must(t, s.counter.stop(t.Context()))
	if host.Probe().PidfdExitInfo {
		s.counter.awaitExit(t, 7)
	} else if st := s.counter.await(t, cri.ContainerState_CONTAINER_EXITED); st.ExitCode != 7 && (st.ExitCode != 255 || st.Reason != "Unknown") {
		t.Errorf("the counter: %v", st)
	}
	lines := s.counter.lines(t)
	n := len(lines) - 1
	for i := s.counted; i < n; i++ {
		if lines[i] != strconv.Itoa(i) {
			t.Fatalf("line %d of the counter is %q", i, lines[i])
		}
	}
	// The signal may come between a line and the count of it.
	if last := lines[n]; last != fmt.Sprintf("end %d", n) && last != fmt.Sprintf("end %d", n-1) {
		t.Errorf("the counter's log has %d lines, its last says %q", n, last)
	}
	t.Logf("the counter wrote %d lines, all are there", n)
}
