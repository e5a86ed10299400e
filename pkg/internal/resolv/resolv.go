// Package resolv reads the node's resolver configuration as a network namespace
// of its own can use it: a server on the host's loopback answers nobody there.
package resolv

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

const (
	nodeFile = "/etc/resolv.conf"
	// upstreamFile has the servers that systemd-resolved itself asks. nodeFile
	// names only its stub then, 127.0.0.53.
	upstreamFile = "/run/systemd/resolve/resolv.conf"
)

// Node returns the node's resolv.conf, for whoever shares its network. It is
// empty where there is none.
func Node() ([]byte, error) { return read(nodeFile) }

// Pod returns what of the node's servers a pod can reach from a network of its
// own. It is empty where there is no resolv.conf.
func Pod() ([]byte, error) { return forPod(nodeFile, upstreamFile) }

func forPod(node, upstream string) ([]byte, error) {
	data, err := read(node)
	if err != nil {
		return nil, err
	}
	own, reachable, left := withoutLoopback(data)
	if own == 0 || reachable > 0 {
		return left, nil
	}
	data, err = read(upstream)
	if err != nil {
		return nil, err
	}
	if _, reachable, resolved := withoutLoopback(data); reachable > 0 {
		return resolved, nil
	}
	return left, nil
}

func read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// withoutLoopback returns the file without the servers on the host's loopback,
// and how many of each sort it has.
func withoutLoopback(data []byte) (own, reachable int, left []byte) {
	var out bytes.Buffer
	for line := range bytes.Lines(data) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != "nameserver" {
			out.Write(line)
			continue
		}
		if isHost(words[1]) {
			own++
			continue
		}
		reachable++
		out.Write(line)
	}
	return own, reachable, out.Bytes()
}

// isHost says whether an address is of the host itself: loopback, or 0.0.0.0,
// which the resolver takes for that.
func isHost(server string) bool {
	addr, err := netip.ParseAddr(server)
	addr = addr.Unmap()
	return err == nil && (addr.IsLoopback() || addr.IsUnspecified())
}
