package matrix

import (
	"context"
	"flag"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// all makes TestNoValueOfAFieldDoesHarm try every value instead of some of each
// field.
var all = flag.Bool("all-values", false, "try every value of every field")

// perField is how many values of a field are tried, and mixed how many requests with
// several of them, where not all are.
const perField, mixed = 1, 4

func TestNoValueOfAFieldDoesHarm(t *testing.T) {
	worker, err := berth.Supervisor().Version(t.Context())
	must(t, err)
	daemon := berth.DaemonPID()
	t.Run("rows", func(t *testing.T) {
		each(t, success, true, func(t *testing.T, m protoreflect.MethodDescriptor, r row) {
			c := r.make(t)
			enrich(t, c.request)
			for _, values := range plan(m, t.TempDir()) {
				tryOut(t, m, r, c, values)
			}
		})
	})
	after, err := berth.Supervisor().Version(t.Context())
	if must(t, err); after.WorkerPID != worker.WorkerPID || after.AnchorPID != worker.AnchorPID || berth.DaemonPID() != daemon {
		t.Errorf("berth-runtime was %+v, is %+v", worker, after)
	}
	for _, log := range []string{filepath.Join(berth.Dir, "berthd.log"), filepath.Join(berth.State(), "berth-runtime.log")} {
		if text, err := os.ReadFile(log); err != nil || strings.Contains(string(text), "panic") {
			t.Errorf("a panic, or no log: %v", err)
		}
	}
	x := running(t)
	must(t, x.alone(t))
}

// plan is what the fields of an RPC are set to: one at a time, then several.
func plan(m protoreflect.MethodDescriptor, scratch string) (requests [][]value) {
	var every []value
	for _, s := range spots(m.Input(), nil) {
		values := s.values(scratch)
		every = append(every, values...)
		if !*all {
			random := seeded(s.String())
			random.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			values = values[:min(perField, len(values))]
		}
		for _, v := range values {
			requests = append(requests, []value{v})
		}
	}
	random := seeded(string(m.Name()))
	for range mixed {
		var several []value
		for range min(4, len(every)) {
			several = append(several, every[random.IntN(len(every))])
		}
		if several != nil {
			requests = append(requests, several)
		}
	}
	return requests
}

// seeded is the same for the same text, in every run.
func seeded(text string) *rand.Rand {
	h := fnv.New64()
	_, _ = h.Write([]byte(text)) // never fails
	return rand.New(rand.NewPCG(h.Sum64(), 1))
}

// tryOut makes a call with the values, which may be refused, and starts what it
// makes.
func tryOut(t *testing.T, m protoreflect.MethodDescriptor, r row, c call, values []value) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var what []string
	for _, v := range values {
		what = append(what, v.what)
	}
	made, err := call{request: change(c.request, values...), during: c.during, enough: c.enough}.do(ctx, m)
	if code := status.Code(err); !decent(err) && code != r.answers {
		t.Errorf("%s: %v", strings.Join(what, ", "), err)
	}
	if err != nil || len(made) == 0 {
		return
	}
	if created, ok := made[0].(*cri.CreateContainerResponse); ok {
		_, err := berth.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId})
		if !decent(err) {
			t.Errorf("the start with %s: %v", strings.Join(what, ", "), err)
		}
	}
	takeBack(t, made)
}

// decent tells whether an error says what is wrong with the request. Without a code are
// that of a registry, as CRI wants it, and what the kernel finds wrong only when all is
// put together, which init says in its own words.
func decent(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.ResourceExhausted, codes.PermissionDenied:
		return true
	case codes.Unknown:
		said := status.Convert(err).Message()
		return strings.HasPrefix(said, crierrors.ErrRegistryUnavailable.Error()) || strings.Contains(said, "container init")
	}
	return false
}

// enrich gives a request something of what it need not have, so that the fields in
// there are looked at.
func enrich(t *testing.T, request proto.Message) {
	t.Helper()
	switch r := request.(type) {
	case *cri.RunPodSandboxRequest:
		r.Config.Hostname, r.Config.DnsConfig = "matrix", &cri.DNSConfig{Servers: []string{"10.0.0.1"}}
		r.Config.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		r.Config.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18000 + int32(number.Add(1))}}
	case *cri.CreateContainerRequest:
		r.Config.Mounts = []*cri.Mount{{HostPath: t.TempDir(), ContainerPath: "/m", Propagation: cri.MountPropagation_PROPAGATION_PRIVATE}}
		r.Config.Devices = []*cri.Device{{HostPath: "/dev/null", ContainerPath: "/dev/x", Permissions: "rwm"}}
		r.Config.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b")}}
		r.Config.Linux.Resources = &cri.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 50_000, MemoryLimitInBytes: 64 << 20}
	case *cri.PullImageRequest:
		r.Auth = &cri.AuthConfig{Username: "u", Password: "p"}
	}
}
