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
	"runtime"
	"slices"
	"strings"
	"sync"
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

func TestPortsOfTheHostReachThePod(t *testing.T) {
	const tcp, udp, local, none = 18101, 18102, 18103, 18104
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{
			{ContainerPort: 80, HostPort: tcp},
			{ContainerPort: 53, HostPort: udp, Protocol: cri.Protocol_UDP},
			{ContainerPort: 80, HostPort: local, HostIp: "127.0.0.1"},
			{ContainerPort: none, HostPort: 0},
		}
	})
	p.start(server(80, "tcp"))
	c := p.start(sleeper())
	echo(t, p, ":53")
	v4, _ := p.addresses()
	gateway := strings.Fields(c.sh("ip route | grep default"))[2]
	for address, want := range map[string]string{
		fmt.Sprintf("127.0.0.1:%d", tcp): "tcp", fmt.Sprintf("%s:%d", gateway, tcp): "tcp", fmt.Sprintf("127.0.0.1:%d", local): "tcp", v4 + ":80": "tcp",
	} {
		wantAnswer(t, address, want)
	}
	for _, address := range []string{fmt.Sprintf("%s:%d", gateway, local), fmt.Sprintf("127.0.0.1:%d", none)} {
		if got, err := ask(address); err == nil {
			t.Errorf("%s answers %q", address, got)
		}
	}
	eventually(t, func() error { return askUDP(fmt.Sprintf("127.0.0.1:%d", udp), "udp") })
	p.remove()
	if got, err := ask(fmt.Sprintf("127.0.0.1:%d", tcp)); err == nil {
		t.Errorf("after the removal it answers %q", got)
	}
	again := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 81, HostPort: tcp}}
	})
	again.start(server(81, "again"))
	wantAnswer(t, fmt.Sprintf("127.0.0.1:%d", tcp), "again")
}

// echo answers datagrams inside a pod's network namespace until the test ends.
func echo(t *testing.T, p *pod, address string) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(berth.Dir, "netns", "*"+p.id))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pins %v, %v", pins, err)
	}
	pin, err := os.Open(pins[0])
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	type listening struct {
		conn net.PacketConn
		err  error
	}
	made := make(chan listening)
	go onAThread(func() {
		err := unix.Setns(int(pin.Fd()), unix.CLONE_NEWNET)
		var l listening
		if l.err = err; err == nil {
			l.conn, l.err = net.ListenPacket("udp4", address)
		}
		made <- l
	})
	l := <-made
	if l.err != nil {
		t.Fatal(l.err)
	}
	var answering sync.WaitGroup
	t.Cleanup(func() { l.conn.Close(); answering.Wait() })
	answering.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := l.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = l.conn.WriteTo(buf[:n], from) // the client asks again
		}
	})
}

// onAThread calls f on a thread that ends with it, so that f may change it: not
// the main one, which cannot end.
func onAThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // locked still: the thread ends with the goroutine
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

func askUDP(address, text string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	return wantText(string(buf[:n]), text)
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
			Servers: []string{"10.0.0.10", "fd00::10"}, Searches: []string{"ns.svc.cluster.local", "cluster.local"}, Options: []string{"ndots:5", "bad\nnameserver 6.6.6.6"},
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
	if got := unnamed.start(sh("hostname")).output(); got != unnamed.id[:12] {
		t.Errorf("hostname of a pod without one: %q", got)
	}
	for _, name := range []string{strings.Repeat("x", 65), "a b", "a\nb", "a/b"} {
		config := podConfig(t)
		config.Hostname = name
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("hostname %q: %v", name, err)
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
	if out := strings.TrimSpace(p.start(sh("hostname; readlink /proc/self/ns/net; cat /etc/hosts")).output()); out != name+"\n"+namespace(t, "net")+"\n"+strings.TrimSpace(string(hosts)) {
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

func TestSysctlsAreThePodsOnly(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.core.somaxconn": "321", "kernel.shm_rmid_forced": "1", "net/ipv4/tcp_syncookies": "0", "fs.mqueue.msg_max": "12"}
	})
	out := p.start(sh("cd /proc/sys; cat net/core/somaxconn kernel/shm_rmid_forced net/ipv4/tcp_syncookies fs/mqueue/msg_max net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range")).output()
	if strings.Join(strings.Fields(out), " ") != "321 1 0 12 0 0 2147483647" {
		t.Errorf("got %q", out)
	}
	if out := runPod(t).start(sh("cat /proc/sys/kernel/shm_rmid_forced")).output(); out != "0" {
		t.Errorf("another pod has %s", out)
	}
}

func TestSysctlsThatReachTheHostAreRefused(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		network    cri.NamespaceMode
		key, value string
	}{
		"no namespace":           {cri.NamespaceMode_POD, "kernel.core_pattern", "|/bin/evil"},
		"no namespace of memory": {cri.NamespaceMode_POD, "vm.swappiness", "1"},
		"two in the value":       {cri.NamespaceMode_POD, "kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/bin/evil"},
		"two with a plus":        {cri.NamespaceMode_POD, "kernel.shm_rmid_forced+kernel.core_pattern", "|/bin/evil"},
		"equals in the name":     {cri.NamespaceMode_POD, "net.core.somaxconn=1", "1"},
		"up the tree":            {cri.NamespaceMode_POD, "net.../kernel/core_pattern", "|/bin/evil"},
		"up with slashes":        {cri.NamespaceMode_POD, "net/../kernel/core_pattern", "|/bin/evil"},
		"the host's network":     {cri.NamespaceMode_NODE, "net.core.somaxconn", "1"},
		"hostname":               {cri.NamespaceMode_POD, "kernel.hostname", "x"},
		"empty":                  {cri.NamespaceMode_POD, "", "x"},
	} {
		config := podConfig(t)
		config.Linux.SecurityContext.NamespaceOptions.Network = c.network
		config.Linux.Sysctls = map[string]string{c.key: c.value}
		r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		if code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	after, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("core_pattern is %q now, %v", after, err)
	}
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
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil || bytes.Contains(rules, []byte("18110")) {
		t.Errorf("rules are left: %v, %s", err, rules)
	}
}

func TestANodeWithoutConfigurationWaitsForOne(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "be2ecni") //nolint:usetesting // T.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := startKubelets(t, dir)
	ready := func() (*cri.RuntimeCondition, error) {
		r, err := n.Runtime.Status(t.Context(), &cri.StatusRequest{})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(r.Status.Conditions, func(c *cri.RuntimeCondition) bool { return c.Type == cri.NetworkReady })
		return r.Status.Conditions[i], nil
	}
	c, err := ready()
	if err != nil || c.Status || c.Reason == "" || c.Message == "" {
		t.Errorf("without a configuration: %v, %v", c, err)
	}
	request := &cri.RunPodSandboxRequest{Config: podConfig(t)}
	own(request.Config)
	if _, err := n.Runtime.RunPodSandbox(t.Context(), request); err == nil {
		t.Error("a pod runs without a network")
	}
	write(t, filepath.Join(dir, "cni", "10-test.conflist"), conflist)
	eventually(t, func() error {
		if c, err := ready(); err != nil || !c.Status {
			return fmt.Errorf("not ready: %v, %w", c, err)
		}
		return nil
	})
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", "e2ecni0").Run() }) // CNI's plugins leave their bridge
	r, err := n.Runtime.RunPodSandbox(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil || !strings.HasPrefix(s.Status.Network.Ip, "10.77.") {
		t.Errorf("status %v, %v", s, err)
	}
	if err := os.Remove(filepath.Join(dir, "cni", "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if c, err := ready(); err != nil || c.Status {
			return fmt.Errorf("still ready: %v, %w", c, err)
		}
		return nil
	})
	if _, err := n.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId}); err != nil {
		t.Errorf("removal without the configuration: %v", err)
	}
}

const conflist = `{"cniVersion":"1.0.0","name":"e2e","plugins":[
  {"type":"bridge","bridge":"e2ecni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"/run/e2e-cni"}},
  {"type":"portmap","capabilities":{"portMappings":true}}]}`

// startKubelets starts a node that is not standalone: berth-runtime first, as
// systemd does.
func startKubelets(t *testing.T, dir string) *testnode.Node {
	t.Helper()
	n, err := testnode.New(dir, testnode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.State(), 0o711); err != nil {
		t.Fatal(err)
	}
	anchor := exec.Command(filepath.Join(os.Getenv("BERTH_BIN"), "berth-runtime"), "--state", n.State())
	if err := anchor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := anchor.Wait(); err != nil {
			t.Errorf("berth-runtime: %v", err)
		}
	})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	return n
}
