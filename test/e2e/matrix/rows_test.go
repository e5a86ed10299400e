package matrix

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// rows are those of all RPCs.
func rows() map[string]row {
	all := map[string]row{}
	for _, group := range []map[string]row{nodeRows, podRows, podReads, containerRows, containerReads, streamRows, statsRows, checkpointRows, imageRows} {
		maps.Copy(all, group)
	}
	return all
}

// nothingWrong is of requests that have nothing which could be wrong.
func nothingWrong(why string) map[kind]string { return map[kind]string{wrongInput: why} }

// asks is a row of a call that changes nothing.
func asks(make func(t *testing.T) (request proto.Message, effect func(t *testing.T, r reply)), without map[kind]string, wrong ...wrong) row {
	return row{without: without, wrong: wrong, make: func(t *testing.T) call {
		request, effect := make(t)
		return call{request: request, effect: func(t *testing.T, replies []reply) {
			for _, r := range replies {
				effect(t, r)
			}
		}}
	}}
}

// ids are wrong ones for a call that says so; set puts one into a request.
func ids[R proto.Message](field string, set func(R, string)) []wrong {
	return idsAnswered(field, codes.NotFound, set)
}

// lenient are wrong ids for a call that is done where there is nothing.
func lenient[R proto.Message](field string, set func(R, string)) []wrong {
	return idsAnswered(field, codes.OK, set)
}

func idsAnswered[R proto.Message](field string, unknown codes.Code, set func(R, string)) []wrong {
	var all []wrong
	for what, id := range map[string]string{
		"no": "", "an unknown": strings.Repeat("0123456789abcdef", 4), "a path as": "../../../etc", "a path to one as": "../containers",
		"a name as": "p1", "a newline in": "abc\ndef", "a long": strings.Repeat("a", 1<<20), "zero in": "a\x00b", "a pattern as": "*",
	} {
		all = append(all, bad(what+" "+field, unknown, func(r R) { set(r, id) }))
	}
	return all
}

// several is an id that several have.
func several[R proto.Message](field string, all func(t *testing.T) []string, set func(R, string)) wrong {
	return wrong{"an ambiguous " + field, codes.InvalidArgument, func(t *testing.T, m proto.Message) { set(m.(R), ambiguous(t, all(t))) }}
}

func podIDs(t *testing.T) (all []string) {
	r, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	must(t, err)
	for _, p := range r.Items {
		all = append(all, p.Id)
	}
	return all
}

func containerIDs(t *testing.T) (all []string) {
	r, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{})
	must(t, err)
	for _, c := range r.Containers {
		all = append(all, c.Id)
	}
	return all
}

var nodeRows = map[string]row{
	"Version": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.VersionRequest{Version: "v1"}, func(t *testing.T, r reply) {
			if v := the[*cri.VersionResponse](r); v.RuntimeName != "berth" || v.RuntimeApiVersion != "v1" || v.RuntimeVersion == "" {
				t.Errorf("got %v", v)
			}
		}
	}, nothingWrong("the client's version decides nothing: its choice is the service's name")),
	"Status": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.StatusRequest{Verbose: true}, func(t *testing.T, r reply) {
			s := the[*cri.StatusResponse](r)
			for _, c := range s.GetStatus().GetConditions() {
				if !c.Status {
					t.Errorf("not ready: %v", c)
				}
			}
			if len(s.RuntimeHandlers) < 2 || len(s.Info) == 0 {
				t.Errorf("got %v", s)
			}
		}
	}, nothingWrong("a boolean has no wrong value")),
	"RuntimeConfig": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		return &cri.RuntimeConfigRequest{}, func(t *testing.T, r reply) {
			if c := the[*cri.RuntimeConfigResponse](r); c.GetLinux() == nil {
				t.Errorf("got %v", c)
			}
		}
	}, nothingWrong("the request has no fields")),
	"UpdateRuntimeConfig": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		const cidr = "10.203.7.0/24"
		return &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: cidr}}}, func(t *testing.T, _ reply) {
			s, err := berth.Runtime.Status(t.Context(), &cri.StatusRequest{Verbose: true})
			if must(t, err); !strings.Contains(s.Info["cni"], cidr) {
				t.Errorf("the network is %s", s.Info["cni"])
			}
		}
	}, nil, cidrs("10.203.7.0", "10.203.7.0/33", "/", "10.203.7.0/24 10.204.0.0/24", "10.203.7.0/24,10.204.0.0/16", "fd00::/200", "a,b,c", "127.0.0.0/8", "0.0.0.0/0", "::/0", "224.0.0.0/8")...),
}

func cidrs(all ...string) (wrongs []wrong) {
	for _, cidr := range all {
		wrongs = append(wrongs, bad(fmt.Sprintf("the subnet %q", cidr), codes.InvalidArgument, func(r *cri.UpdateRuntimeConfigRequest) {
			r.RuntimeConfig.NetworkConfig.PodCidr = cidr
		}))
	}
	return wrongs
}
