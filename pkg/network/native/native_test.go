package native

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
)

func TestPinnedVersionIsTheOneInGoSum(t *testing.T) {
	data, err := os.ReadFile("../../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if want := pluginsModule + " " + pluginsVersion + " " + pluginsSum + "\n"; !strings.Contains(string(data), want) {
		t.Errorf("go.sum lacks %q: check the new plugins with the conformance test, then pin them", want)
	}
}

func TestUnknownOptionsAreDeclined(t *testing.T) {
	const ipam = `"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/16"}]]}`
	for conf, want := range map[string]bool{
		`{"cniVersion":"1.0.0","name":"a","type":"bridge",` + ipam + `}`:                                       true,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","vlan":3,` + ipam + `}`:                              false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","macspoofchk":true,` + ipam + `}`:                    false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","runtimeConfig":{"mac":"x"},` + ipam + `}`:           false,
		`{"cniVersion":"0.1.0","name":"a","type":"bridge",` + ipam + `}`:                                       false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","ipam":{"type":"dhcp"}}`:                             false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","ipam":[1]}`:                                         false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","ipMasqBackend":"other",` + ipam + `}`:               false,
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","hairpinMode":true,"promiscMode":true,` + ipam + `}`: false,
	} {
		_, err := parseBridge(&call{conf: []byte(conf)})
		if (err == nil) != want {
			t.Errorf("%s: %v", conf, err)
		}
	}
	if _, err := parseBridge(&call{args: "IgnoreUnknown=1;MAC=02:00:00:00:00:01", conf: []byte(`{"cniVersion":"1.0.0","name":"a",` + ipam + `}`)}); err == nil {
		t.Error("a MAC in CNI_ARGS was taken")
	}
}

func TestRemovalFindsTheJumps(t *testing.T) {
	listing := strings.Split(`*nat
:PREROUTING ACCEPT [0:0]
:CNI-DN-1 - [0:0]
:CNI-DN-12 - [0:0]
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 80 -m comment --comment "a -j CNI-DN-12" -j CNI-DN-1
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 81 -j CNI-DN-12
-A CNI-DN-1 -p tcp -j DNAT --to-destination 10.0.0.2:80
COMMIT`, "\n")
	want := []string{
		`-D CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 80 -m comment --comment "a -j CNI-DN-12" -j CNI-DN-1`,
		"-F CNI-DN-1", "-X CNI-DN-1",
	}
	if diff := cmp.Diff(want, removal(listing, "CNI-DN-1")); diff != "" {
		t.Error(diff)
	}
	if got := removal(listing, "CNI-DN-2"); got != nil {
		t.Errorf("of a chain that is not there: %q", got)
	}
}

// TestNothingIsLeftWhereTheKernelHasNoNFTables has the kernel answer as one
// without the module does.
func TestNothingIsLeftWhereTheKernelHasNoNFTables(t *testing.T) {
	var answer error
	e := &Exec{}
	e.filter.open = func(...nftables.ConnOption) (*nftables.Conn, error) { return nil, answer }
	nft := backendNFT
	c, conf := &call{container: "a", ifName: "eth0"}, &bridgeConf{IPMasq: true, IPMasqBackend: &nft}
	for name, remove := range map[string]func() error{
		"masquerade": func() error { return e.unmasquerade(t.Context(), c, conf, nil) },
		"ports":      func() error { return e.unforward(t.Context(), c, &portmapConf{Backend: &nft}) },
		"tables":     e.RemoveTables,
	} {
		for _, answer = range []error{syscall.EINVAL, syscall.EPROTONOSUPPORT} {
			if err := remove(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		answer = syscall.EPERM
		if err := remove(); !errors.Is(err, answer) {
			t.Errorf("%s: a failure of another kind: %v", name, err)
		}
	}
}

func FuzzDecline(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"a","type":"bridge","ipam":{"type":"host-local"}}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"a","runtimeConfig":{"portMappings":[{"hostPort":1}]}}`))
	f.Fuzz(func(_ *testing.T, conf []byte) {
		c := &call{command: "STATUS", conf: conf}
		_, _ = parseBridge(c) // whatever they say, they must not panic
		_, _ = parsePortmap(c)
		_, _ = bandwidth(&call{command: "ADD", conf: conf})
	})
}
