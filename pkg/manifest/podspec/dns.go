package podspec

import (
	"bufio"
	"io"
	"os"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// resolvConf is the node's. A bounded part of it is read.
const (
	resolvConf    = "/etc/resolv.conf"
	maxResolvConf = 64 << 10
)

// nodeDNS returns the node's own settings, none where they cannot be read.
func nodeDNS() *runtimeapi.DNSConfig {
	f, err := os.Open(resolvConf)
	if err != nil {
		return &runtimeapi.DNSConfig{}
	}
	defer f.Close()
	return parseResolvConf(io.LimitReader(f, maxResolvConf))
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
