package network

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func publishing(t *testing.T, id string, port int32) AttachRequest {
	req := pod(newNetNS(t), id)
	req.Ports = []PortMapping{{ContainerPort: 80, HostPort: port}}
	return req
}

func TestAHostPortIsNotGivenTwice(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	attach(t, s, publishing(t, "a", 8080))
	second := publishing(t, "b", 8080)
	for name, s := range map[string]*Service{"at once": s, "after a restart": open(t, s.opts)} {
		_, err := s.Attach(t.Context(), second)
		if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "default/a") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := s.records.Get("b"); left != nil {
		t.Errorf("record stays: %+v", left)
	}
	if err := s.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	attach(t, s, second)
}

func TestAHostPortIsGivenToOneOfMany(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		req := publishing(t, fmt.Sprintf("p%d", i), 8080)
		wg.Go(func() { _, errs[i] = s.Attach(t.Context(), req) })
	}
	wg.Wait()
	given := 0
	for i, err := range errs {
		if err == nil {
			given++
		}
		if err := s.Detach(t.Context(), fmt.Sprintf("p%d", i)); err != nil {
			t.Error(err)
		}
	}
	if given != 1 {
		t.Errorf("%d pods have it: %v", given, errs)
	}
}

func TestAHostPortOfAProcessIsRefused(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	req := publishing(t, "a", 8080)
	if _, err := s.Attach(t.Context(), req); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("got %v", err)
	}
	l.Close()
	attach(t, s, req)
}

func TestSchedulersGiveHostPortsThemselves(t *testing.T) {
	host(t)
	s := openTypical(t)
	attach(t, s, publishing(t, "a", 8080))
	attach(t, s, publishing(t, "b", 8080))
}
