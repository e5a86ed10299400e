package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
)

// addresses are the pod's, the IPv4 one first.
func (p *pod) addresses() (v4, v6 string) {
	p.t.Helper()
	n := p.status().Network
	if len(n.AdditionalIps) != 1 {
		p.t.Fatalf("addresses %v", n)
	}
	return n.Ip, n.AdditionalIps[0].Ip
}

// server answers HTTP on a port, over IPv4 and IPv6, with one line.
func server(port int, answer string) *cri.ContainerConfig {
	return sh(fmt.Sprintf("mkdir /www && echo %s > /www/index.html && exec httpd -f -p [::]:%d -h /www", answer, port))
}

// ask returns what a server says.
func ask(address string) (string, error) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + address)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	out, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(out)), err
}

// get asks a server at port 8080 from inside a container. (The static busybox'
// wget wants libraries to look up names.)
func get(address string) string {
	return `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 ` + address + " 8080 | tail -n 1"
}

func wantAnswer(t *testing.T, address, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got string
	err := testnode.Until(ctx, func() (err error) {
		if got, err = ask(address); err == nil && got != want {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", address, err)
	}
}

func TestAPodHasAddressesOfBothFamilies(t *testing.T) {
	p, q := runPod(t, own), runPod(t, own)
	v4, v6 := p.addresses()
	if a, err := netip.ParseAddr(v4); err != nil || !a.Is4() {
		t.Errorf("IPv4 address %q", v4)
	}
	if a, err := netip.ParseAddr(v6); err != nil || !netip.MustParsePrefix("fd00:be:e2e::/64").Contains(a) {
		t.Errorf("IPv6 address %q", v6)
	}
	c := p.start(server(8080, "hello"))
	out := c.sh("ip addr show eth0; ip addr show lo; ip route; ip -6 route; cat /etc/hosts")
	for _, want := range []string{v4 + "/", v6 + "/", "127.0.0.1/8", "default via", v4 + "\t", v6 + "\t"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	other := q.start(sleeper())
	for _, address := range []string{v4, v6} {
		wantAnswer(t, net.JoinHostPort(address, "8080"), "hello")
		if got := other.sh(get(address)); got != "hello" {
			t.Errorf("from another pod at %s: %q", address, got)
		}
	}
	if got := c.sh(get("127.0.0.1")); got != "hello" {
		t.Errorf("over loopback: %q", got)
	}
	p.stop()
	if n := p.status().Network; n.GetIp() != "" {
		t.Errorf("a stopped pod has %v", n)
	}
}

func TestBandwidthIsLimitedByAnnotations(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "16M"}
	})
	out, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	for _, want := range []string{"rate 8Mbit", "rate 16Mbit"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	p.remove()
	out, err = exec.Command("tc", "qdisc", "show").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("tbf")) {
		t.Errorf("after the removal: %v, %s", err, out)
	}
	config := podConfig(t)
	own(config)
	config.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "fast"}
	if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
		t.Errorf("nonsense: %v", err)
	}
}

func TestNamesAreThePods(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Hostname = "a-host"
		c.DnsConfig = &cri.DNSConfig{
			Servers: []string{"10.0.0.10", "fd00::10"}, Searches: []string{"ns.svc.cluster.local", "cluster.local"}, Options: []string{"ndots:5"},
		}
	})
	c := p.start(sleeper())
	for command, want := range map[string]string{
		"hostname":             "a-host",
		"cat /etc/hostname":    "a-host",
		"echo $HOSTNAME":       "a-host",
		"cat /etc/resolv.conf": "search ns.svc.cluster.local cluster.local\nnameserver 10.0.0.10\nnameserver fd00::10\noptions ndots:5",
	} {
		if got := c.sh(command); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	v4, _ := p.addresses()
	if got := c.sh("cat /etc/hosts"); !strings.Contains(got, v4+"\ta-host") || !strings.Contains(got, "127.0.0.1\tlocalhost") {
		t.Errorf("hosts: %q", got)
	}
	unnamed := runPod(t, own)
	short := unnamed.id[:12]
	if got, want := unnamed.start(sh("hostname; cat /etc/hostname; echo $HOSTNAME")).output(), short+"\n"+short+"\n"+short; got != want {
		t.Errorf("names of a pod without one: %q", got)
	}
	for _, name := range []string{strings.Repeat("x", 65), "a b", "a\nb", "a/b"} {
		config := podConfig(t)
		config.Hostname = name
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("hostname %q: %v", name, err)
		}
	}
}

func TestNamesAreLookedUpAsTheNodeDoesWithoutADNSConfiguration(t *testing.T) {
	node, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for want, dns := range map[string]*cri.DNSConfig{strings.TrimSuffix(string(node), "\n"): nil, "": {}} {
		p := runPod(t, func(c *cri.PodSandboxConfig) { c.DnsConfig = dns })
		if out := p.start(sh("cat /etc/resolv.conf")).output(); out != want {
			t.Errorf("%v: got %q, want %q", dns, out, want)
		}
	}
}

func TestKubeletsOwnHostsFileWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "10.1.2.3\tkubelet\n")
	config := sh("cat /etc/hosts")
	config.Mounts = []*cri.Mount{{HostPath: path, ContainerPath: "/etc/hosts"}}
	if out := runPod(t, own).start(config).output(); out != "10.1.2.3\tkubelet" {
		t.Errorf("got %q", out)
	}
}

func TestTheHostsNetworkIsTheHosts(t *testing.T) {
	p := runPod(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat(name+"\n", 3) + namespace(t, "net") + "\n" + strings.TrimSpace(string(hosts))
	if out := strings.TrimSpace(p.start(sh("hostname; cat /etc/hostname; echo $HOSTNAME; readlink /proc/self/ns/net; cat /etc/hosts")).output()); out != want {
		t.Errorf("got %q", out)
	}
}

// namespace is this process's own, as the host's is.
func namespace(t *testing.T, kind string) string {
	t.Helper()
	ns, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestAPodWhoseNamespaceIsGoneIsRemovedAllTheSame(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18110}}
	})
	pins, err := filepath.Glob(filepath.Join(berth.Dir, "netns", "*"+p.id))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pins %v, %v", pins, err)
	}
	if err := unix.Unmount(pins[0], unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(pins[0]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p.stop()
	}
	p.remove()
	if rules := ruleset(t); strings.Contains(rules, "18110") {
		t.Errorf("rules are left: %s", rules)
	}
}
