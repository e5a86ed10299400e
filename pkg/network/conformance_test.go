package network

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/network/plugin"
)

// conformanceLists are configurations that package native takes.
var conformanceLists = map[string]string{
	"iptables": `{"cniVersion":"1.0.0","name":"c","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"promiscMode":true,"ipam":IPAM4},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`,
	"nftables": `{"cniVersion":"1.1.0","name":"c","plugins":[
 {"type":"bridge","bridge":"cni0","isDefaultGateway":true,"ipMasq":true,"ipMasqBackend":"nftables","hairpinMode":true,"mtu":1400,"ipam":IPAMD},
 {"type":"portmap","backend":"nftables","snat":true,"capabilities":{"portMappings":true}},
 {"type":"bandwidth","capabilities":{"bandwidth":true}}]}`,
	"dual stack iptables": `{"cniVersion":"1.0.0","name":"c","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"portIsolation":true,"ipam":IPAM6},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`,
	"dual stack nftables": `{"cniVersion":"0.4.0","name":"c","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables","ipam":IPAM6,"dns":{"nameservers":["10.77.0.1"]}},
 {"type":"portmap","backend":"nftables","snat":false,"capabilities":{"portMappings":true}}]}`,
}

func conformanceConf(list, ipamDir string) string {
	const v4, v6 = `[{"subnet":"10.77.0.0/16"}]`, `[{"subnet":"fd77::/64"}]`
	ipam := func(ranges, routes string) string {
		return fmt.Sprintf(`{"type":"host-local","dataDir":%q,"ranges":[%s],"routes":[%s]}`, ipamDir, ranges, routes)
	}
	return strings.NewReplacer(
		"IPAMD", ipam(v4, ""),
		"IPAM4", ipam(v4, `{"dst":"0.0.0.0/0"}`),
		"IPAM6", ipam(v4+","+v6, `{"dst":"0.0.0.0/0"},{"dst":"::/0"}`),
	).Replace(list)
}

// TestNativeDoesWhatThePluginsDo attaches the same pod by the plugins and in
// process, and compares everything that can be seen; then each removes what the
// other made.
func TestNativeDoesWhatThePluginsDo(t *testing.T) {
	for name, list := range conformanceLists {
		t.Run(name, func(t *testing.T) {
			host(t)
			root := t.TempDir()
			conf := filepath.Join(root, "net.d")
			writeFile(t, filepath.Join(conf, "10.conflist"), conformanceConf(list, filepath.Join(root, "ipam")))
			o := Options{Root: root, ConfDir: conf}
			inProcess := open(t, o)
			var seen []map[string]string
			for _, by := range []string{"plugins", "native"} {
				adder, deleter := inProcess, inProcess
				if by == "plugins" {
					adder = withBinaries(open(t, o))
				} else {
					deleter = withBinaries(open(t, o))
				}
				seen = append(seen, addAndLook(t, adder, deleter, root))
			}
			if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
				t.Errorf("plugins (-) and native (+) differ:\n%s", diff)
			}
		})
	}
}

// withBinaries makes a service run every plugin as a process.
func withBinaries(s *Service) *Service {
	s.cni.installed = libcni.NewCNIConfigWithCacheDir(s.opts.BinDirs, s.opts.CacheDir, &plugin.Exec{})
	return s
}

func addAndLook(t *testing.T, adder, deleter *Service, root string) map[string]string {
	t.Helper()
	req := pod(newNetNS(t), "conform")
	req.Ports = []PortMapping{
		{ContainerPort: 80, HostPort: 8080},
		{Protocol: "udp", ContainerPort: 53, HostPort: 5353, HostIP: "0.0.0.0"},
		{Protocol: "sctp", ContainerPort: 90, HostPort: 9090, HostIP: "127.0.0.1"},
		{ContainerPort: 91, HostPort: 9191, HostIP: "::1"},
	}
	res, err := adder.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	seen := look(t, req.NetNS, root, res)
	deleter.records.Put(req.PodID, adder.records.Get(req.PodID))
	if err := deleter.Detach(t.Context(), req.PodID); err != nil {
		t.Fatal(err)
	}
	if err := deleter.Close(); err != nil {
		t.Fatal(err)
	}
	if left := rules(t); strings.Contains(left, "dnat") || strings.Contains(left, "10.77.0.2") || strings.Contains(left, "fd77::2") {
		t.Errorf("rules stay:\n%s", left)
	}
	seen["after: rules"] = rules(t)
	seen["after: addresses"] = ipamFiles(t, root)
	removeLink("cni0")
	run(t, "nft", "flush", "ruleset")
	for _, dir := range []string{"ipam", "network/cache"} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	writeSysctl(t, "net/ipv4/ip_forward", "0")
	writeSysctl(t, "net/ipv6/conf/all/forwarding", "0")
	return seen
}

// look describes all that an attachment can be seen by.
func look(t *testing.T, netns, root string, res Result) map[string]string {
	t.Helper()
	veth := res.Interfaces[1].Name
	seen := map[string]string{
		"result":    normal(pretty(t, res.Raw), netns),
		"addresses": ipamFiles(t, root),
		"rules":     rules(t),
		"bridge":    normal(run(t, "ip", "-d", "link", "show", "cni0")+run(t, "ip", "addr", "show", "cni0"), netns),
		"port":      normal(run(t, "ip", "-d", "link", "show", veth), netns),
	}
	for _, name := range []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/cni0/route_localnet",
		"net/ipv6/conf/cni0/accept_ra", "net/ipv6/conf/" + veth + "/accept_ra",
	} {
		seen[strings.ReplaceAll(name, veth, "VETH")] = readSysctl(t, name)
	}
	err := inNetNS(netns, func() error {
		seen["pod links"] = normal(run(t, "ip", "-d", "addr"), netns)
		seen["pod routes"] = run(t, "ip", "route") + run(t, "ip", "-6", "route")
		for _, name := range []string{"net/ipv6/conf/eth0/accept_dad", "net/ipv4/conf/eth0/arp_notify", "net/ipv6/conf/eth0/keep_addr_on_down"} {
			seen["pod "+name] = readSysctl(t, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// variable is what differs between any two attachments.
var variable = []*regexp.Regexp{
	regexp.MustCompile(`veth[0-9a-f]{8}`),
	regexp.MustCompile(`([0-9a-f]{2}[:.]){5}[0-9a-f]{2}`),
	regexp.MustCompile(`fe80::[0-9a-f:]+`),
	regexp.MustCompile(`@if\d+`), regexp.MustCompile(`(?m)^\d+:`), regexp.MustCompile(`link-netnsid \d+`),
	regexp.MustCompile(`(timer|hello_timer|tcn_timer|topology_change_timer|gc_timer)\s+[0-9.]+`),
	regexp.MustCompile(`designated_(bridge|root|port|cost) \S+|port_(id|no) \S+|bridge_id \S+|root_id \S+`),
	regexp.MustCompile(`link-netns \S+`), regexp.MustCompile(` tentative`),
}

func normal(s, netns string) string {
	s = strings.ReplaceAll(s, netns, "NETNS")
	for _, v := range variable {
		s = v.ReplaceAllString(s, "*")
	}
	return s
}

// rules lists the packet filter in an order of its own, without counters, and
// without the descriptions of tables and chains.
func rules(t *testing.T) string {
	t.Helper()
	counters := regexp.MustCompile(`counter packets \d+ bytes \d+`)
	var at string
	chains := map[string]string{}
	for line := range strings.Lines(run(t, "nft", "list", "ruleset")) {
		line = strings.TrimSpace(counters.ReplaceAllString(line, "counter"))
		switch {
		case strings.HasPrefix(line, "table "):
			at = line
		case strings.HasPrefix(line, "chain "):
			table, _, _ := strings.Cut(at, "{")
			at = table + "{ " + line
			chains[at] = ""
		case line == "" || line == "}" || strings.HasPrefix(line, "comment ") || strings.HasPrefix(line, "#"):
		default:
			chains[at] += "\n " + line
		}
	}
	var out strings.Builder
	for _, at := range slices.Sorted(maps.Keys(chains)) {
		out.WriteString(at + chains[at] + "\n")
	}
	return out.String()
}

func ipamFiles(t *testing.T, root string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "ipam", "c", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %v %q\n", filepath.Base(f), info.Mode(), data)
	}
	return out.String()
}

func pretty(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func readSysctl(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func writeSysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}
