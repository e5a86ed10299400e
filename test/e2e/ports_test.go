package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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

func TestPortsOfEveryProtocolAreMapped(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 90, HostPort: 18106, Protocol: cri.Protocol_SCTP}}
	})
	v4, _ := p.addresses()
	if rules := ruleset(t); !strings.Contains(rules, v4) || !strings.Contains(rules, "sctp") || !strings.Contains(rules, "18106") {
		t.Errorf("no rule for SCTP in %s", rules)
	}
	config := podConfig(t)
	own(config)
	config.PortMappings = []*cri.PortMapping{{ContainerPort: 90, HostPort: 18107, Protocol: 7}}
	if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
		t.Errorf("a protocol that is none: %v", err)
	}
}

func TestPortsOfAPodOnTheHostsNetworkAreTheHostsAlready(t *testing.T) {
	for range 2 { // nothing is taken, so that nothing collides
		runPod(t, func(c *cri.PodSandboxConfig) {
			c.PortMappings = []*cri.PortMapping{{ContainerPort: 18108, HostPort: 18108}}
		})
	}
	if rules := ruleset(t); strings.Contains(rules, "18108") {
		t.Errorf("the port is mapped: %s", rules)
	}
}

// ruleset is all of nftables'.
func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
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
