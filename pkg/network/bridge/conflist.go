package bridge

import (
	"encoding/json"
	"net/netip"
)

// Conflist describes a network on the bridge as a CNI configuration, so that DEL
// needs nothing but the record whatever changes here later. v6 may be zero; the
// addresses are noted below ipamDir.
func (b *Bridge) Conflist(network string, v4, v6 netip.Prefix, ipamDir string) ([]byte, error) {
	type object = map[string]any
	ranges := [][]object{{{"subnet": v4.Masked().String()}}}
	routes := []object{{"dst": "0.0.0.0/0"}}
	if v6.IsValid() {
		ranges = append(ranges, []object{{"subnet": v6.Masked().String()}})
		routes = append(routes, object{"dst": "::/0"})
	}
	bridge := object{
		"type": "bridge", "bridge": b.Name, "isGateway": true, "hairpinMode": true,
		"ipMasq": true, "ipMasqBackend": "nftables",
		"ipam": object{"type": "host-local", "dataDir": ipamDir, "ranges": ranges, "routes": routes},
	}
	if b.MTU > 0 {
		bridge["mtu"] = b.MTU
	}
	return json.Marshal(object{
		"cniVersion": "1.1.0", "name": network, "plugins": []object{
			bridge,
			{"type": "portmap", "backend": "nftables", "snat": true, "capabilities": object{"portMappings": true}},
			{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
		},
	})
}
