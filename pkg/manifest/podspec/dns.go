package podspec

import (
	"bufio"
	"bytes"
	"io"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/internal/resolv"
)

// maxResolvConf is how much of the node's resolv.conf counts.
const maxResolvConf = 64 << 10

// nodeDNS returns the node's own settings, as far as the pod's network reaches,
// and none where they cannot be read.
func nodeDNS(hostNetwork bool) *runtimeapi.DNSConfig {
	read := resolv.Pod
	if hostNetwork {
		read = resolv.Node
	}
	data, err := read()
	if err != nil {
		return &runtimeapi.DNSConfig{}
	}
	return parseResolvConf(io.LimitReader(bytes.NewReader(data), maxResolvConf))
}

func parseResolvConf(r io.Reader) *runtimeapi.DNSConfig {
	config := &runtimeapi.DNSConfig{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			config.Servers = append(config.Servers, fields[1])
		case "search", "domain": // the last one counts
			config.Searches = fields[1:]
		case "options":
			config.Options = append(config.Options, fields[1:]...)
		}
	}
	return config
}
