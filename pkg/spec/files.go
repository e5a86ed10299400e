package spec

import (
	"net/netip"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ResolvConf writes a pod's resolv.conf. It returns nil where there is no
// configuration, and the node's own file holds; one that says nothing makes an
// empty file. Words that could begin a line of their own are left out.
func ResolvConf(d *cri.DNSConfig) []byte {
	if d == nil {
		return nil
	}
	var b strings.Builder
	line := func(keyword string, words []string) {
		if len(words) > 0 {
			b.WriteString(keyword + " " + strings.Join(words, " ") + "\n")
		}
	}
	line("search", filter(d.GetSearches(), oneWord))
	for _, server := range filter(d.GetServers(), oneWord) {
		line("nameserver", []string{server})
	}
	line("options", filter(d.GetOptions(), oneWord))
	return []byte(b.String())
}

func oneWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// Hosts writes an /etc/hosts: the loopback names, and hostname and aliases at
// each of the pod's addresses. Words that could begin a line of their own are
// left out.
func Hosts(hostname string, ips []netip.Addr, aliases ...string) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	names := filter(append([]string{hostname}, aliases...), oneWord)
	if len(names) == 0 {
		return []byte(b.String())
	}
	for _, ip := range ips {
		b.WriteString(ip.String() + "\t" + strings.Join(names, " ") + "\n")
	}
	return []byte(b.String())
}
