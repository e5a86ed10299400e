package network

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/errs"
)

func TestCapabilities(t *testing.T) {
	req := AttachRequest{
		PodID: "p", CgroupParent: "/kubepods/pod1",
		Annotations: map[string]string{ingressAnnotation: "10M", "other": "kept"},
		DNS:         DNS{Servers: []string{"10.0.0.10"}, Options: []string{"ndots:5"}},
		Ports: []PortMapping{
			{Protocol: "TCP", ContainerPort: 80, HostPort: 8080, HostIP: "::1"},
			{ContainerPort: 90},
		},
		IPRanges: [][]IPRange{{{Subnet: "10.1.0.0/16"}}},
	}
	got, err := req.capabilities()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"portMappings":                      []portMap{{8080, 80, "tcp", "::1"}},
		"bandwidth":                         bandwidth{IngressRate: 10e6, IngressBurst: math.MaxUint32},
		"dns":                               dnsCapability{Servers: []string{"10.0.0.10"}, Options: []string{"ndots:5"}},
		"ipRanges":                          req.IPRanges,
		"cgroupPath":                        "/kubepods/pod1",
		"io.kubernetes.cri.pod-annotations": req.Annotations,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRequestsThatCannotBeRightAreRefused(t *testing.T) {
	for name, req := range map[string]AttachRequest{
		"rate is no quantity": {Annotations: map[string]string{ingressAnnotation: "fast"}},
		"rate too low":        {Annotations: map[string]string{egressAnnotation: "999"}},
		"rate too high":       {Annotations: map[string]string{egressAnnotation: "2P"}},
		"rate negative":       {Annotations: map[string]string{ingressAnnotation: "-1M"}},
		"rate too long":       {Annotations: map[string]string{ingressAnnotation: "1" + strings.Repeat("0", 4096)}},
		"protocol":            {Ports: []PortMapping{{Protocol: "icmp", ContainerPort: 1, HostPort: 1}}},
		"container port":      {Ports: []PortMapping{{HostPort: 1}}},
		"host port":           {Ports: []PortMapping{{ContainerPort: 1, HostPort: 65536}}},
		"negative host port":  {Ports: []PortMapping{{ContainerPort: 1, HostPort: -1}}},
		"host address":        {Ports: []PortMapping{{ContainerPort: 1, HostPort: 1, HostIP: "localhost; drop"}}},
		"host address's zone": {Ports: []PortMapping{{ContainerPort: 1, HostPort: 1, HostIP: "fe80::1%eth0"}}},
	} {
		if _, err := req.capabilities(); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, req := range map[string]AttachRequest{
		"second argument in a name": {PodID: "p", Name: "a;IP=10.0.0.1"},
		"path as an id":             {PodID: "../p"},
		"no id":                     {},
	} {
		if _, err := req.args(); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzBandwidth(f *testing.F) {
	for _, s := range []string{"10M", "1k", "1P", "1e6", "0x10", "-1", "1.5Gi", "", "9999999999999999999999E"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseBandwidth(map[string]string{ingressAnnotation: s, egressAnnotation: s})
		if err == nil && (b.IngressRate < 1e3 || b.IngressRate > 1e15 || b.EgressRate != b.IngressRate) {
			t.Errorf("%q: %+v", s, b)
		}
		if err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	})
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte(typical), true)
	f.Add([]byte(`{"name":"a","type":"bridge"}`), false)
	f.Add([]byte(`{"name":"a","cniVersions":["1.0.0","x"],"plugins":[{}]}`), true)
	f.Add([]byte(`{"name":"../a","plugins":[{"type":"../b"}]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, isList bool) {
		list, err := parseConf(data, isList)
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("kind: %v", err)
			}
			return
		}
		if strings.ContainsAny(list.Name, "/ ") || list.Name == "" {
			t.Errorf("name %q", list.Name)
		}
		a := attachment{Config: list.Bytes}
		if _, err := a.list(); err != nil {
			t.Errorf("DEL could not read it again: %v", err)
		}
	})
}
