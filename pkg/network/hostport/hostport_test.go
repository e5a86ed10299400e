package hostport

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func alive() bool { return true }

func TestAPortHasOnePod(t *testing.T) {
	for name, c := range map[string]struct {
		held, wanted Port
		free         bool
	}{
		"the same":               {Port{80, "tcp", ""}, Port{80, "tcp", ""}, false},
		"another port":           {Port{80, "tcp", ""}, Port{81, "tcp", ""}, true},
		"another protocol":       {Port{80, "tcp", ""}, Port{80, "udp", ""}, true},
		"one address of all":     {Port{80, "tcp", ""}, Port{80, "tcp", "127.0.0.1"}, false},
		"all, one being taken":   {Port{80, "tcp", "fd00::1"}, Port{80, "tcp", ""}, false},
		"two addresses":          {Port{80, "tcp", "10.0.0.1"}, Port{80, "tcp", "10.0.0.2"}, true},
		"one address, two forms": {Port{80, "tcp", "10.0.0.1"}, Port{80, "tcp", "::ffff:10.0.0.1"}, false},
		"all of the other kind":  {Port{80, "tcp", "0.0.0.0"}, Port{80, "tcp", "::"}, true},
		"all of one kind":        {Port{80, "tcp", "0.0.0.0"}, Port{80, "tcp", "10.0.0.1"}, false},
	} {
		var table Table
		table.Hold("a", Holder{Name: "default/a", Ports: []Port{c.held}, Alive: alive})
		err := table.Claim("b", Holder{Name: "default/b", Ports: []Port{c.wanted}, Alive: alive})
		if c.free && err != nil || !c.free && (!errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "default/a")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPortsComeBack(t *testing.T) {
	var table Table
	port := []Port{{80, "tcp", ""}}
	dead := false
	table.Hold("a", Holder{Ports: port, Alive: func() bool { return !dead }})
	if err := table.Claim("a", Holder{Ports: port, Alive: func() bool { return !dead }}); err != nil {
		t.Errorf("its own: %v", err)
	}
	dead = true
	if err := table.Claim("b", Holder{Ports: port, Alive: alive}); err != nil {
		t.Errorf("of a pod that nothing reaches: %v", err)
	}
	table.Release("b")
	if err := table.Claim("c", Holder{Ports: port, Alive: alive}); err != nil {
		t.Errorf("after Release: %v", err)
	}
}

func TestAProcessOfTheHostKeepsItsPort(t *testing.T) {
	for network, loopback := range map[string]string{"tcp4": "127.0.0.1", "udp4": "127.0.0.1", "tcp6": "::1"} {
		var taken Port
		if taken.Protocol = network[:3]; taken.Protocol == "tcp" {
			l, err := net.Listen(network, net.JoinHostPort(loopback, "0"))
			if err != nil {
				t.Log(err) // a machine without IPv6
				continue
			}
			defer l.Close()
			taken.Port = int32(l.Addr().(*net.TCPAddr).Port)
		} else {
			c, err := net.ListenPacket(network, net.JoinHostPort(loopback, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			taken.Port = int32(c.LocalAddr().(*net.UDPAddr).Port)
		}
		for _, taken.Address = range []string{"", loopback} {
			if err := Free(taken, true); !errors.Is(err, errs.Conflict) {
				t.Errorf("%s %s: %v", network, taken, err)
			}
		}
		if err := Free(taken, false); network == "tcp6" && err != nil {
			t.Errorf("pods without IPv6: %v", err)
		}
		taken.Address = "192.0.2.1" // which is not this machine's
		if err := Free(taken, true); err != nil {
			t.Errorf("another address: %v", err)
		}
	}
}

func TestAPortThatNobodyHasIsFree(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := Port{Port: int32(l.Addr().(*net.TCPAddr).Port), Protocol: "tcp"}
	l.Close()
	for range 2 { // asking takes nothing
		if err := Free(port, true); err != nil {
			t.Error(err)
		}
	}
}
