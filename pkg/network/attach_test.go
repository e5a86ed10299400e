package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// typical is what most single-node guides write into /etc/cni/net.d.
const typical = `{"cniVersion":"1.0.0","name":"typical","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"promiscMode":true,
  "ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.77.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`

func open(t testing.TB, o Options) *Service {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	if len(o.BinDirs) == 0 {
		o.BinDirs = []string{pluginDir(t)}
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openTypical(t testing.TB) *Service {
	t.Helper()
	root := t.TempDir()
	conf := filepath.Join(root, "net.d")
	writeFile(t, filepath.Join(conf, "10-typical.conflist"), fmt.Sprintf(typical, filepath.Join(root, "ipam")))
	t.Cleanup(func() { removeLink("cni0") })
	return open(t, Options{Root: root, ConfDir: conf})
}

func openBuiltin(t testing.TB, b Builtin) *Service {
	t.Helper()
	s := open(t, Options{Builtin: &b})
	t.Cleanup(func() {
		if err := s.Teardown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func pod(netns, id string) AttachRequest {
	return AttachRequest{PodID: id, Name: id, Namespace: "default", UID: "uid-" + id, NetNS: netns}
}

// attach attaches a new pod, which the test's end detaches.
func attach(t testing.TB, s *Service, req AttachRequest) Result {
	t.Helper()
	if req.NetNS == "" {
		req.NetNS = newNetNS(t)
	}
	res, err := s.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Detach(context.WithoutCancel(t.Context()), req.PodID); err != nil {
			t.Error(err)
		}
	})
	if len(res.IPs) == 0 {
		t.Fatalf("no address in %s", res.Raw)
	}
	return res
}

// serve answers each connection or datagram with name, in the namespace.
func serve(t testing.TB, netns, network, address, name string) {
	t.Helper()
	err := inNetNS(netns, func() error {
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 64)
				for {
					_, from, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteTo([]byte(name), from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ask connects from the namespace, or from the host where it is empty, and
// returns the answer.
func ask(t testing.TB, netns, network, address string) string {
	t.Helper()
	var conn net.Conn
	dial := func() (err error) {
		conn, err = net.DialTimeout(network, address, 3*time.Second)
		return err
	}
	var err error
	if netns == "" {
		err = dial()
	} else {
		err = inNetNS(netns, dial)
	}
	if err != nil {
		t.Errorf("%s %s: %v", network, address, err)
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if strings.HasPrefix(network, "udp") {
		_, _ = conn.Write([]byte("?"))
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil {
		t.Errorf("%s %s: %v", network, address, err)
	}
	return string(buf[:n])
}

func TestPodsReachEachOtherAndTheHost(t *testing.T) {
	host(t)
	s := openTypical(t)
	nsA, nsB := newNetNS(t), newNetNS(t)
	a, b := attach(t, s, pod(nsA, "a")), attach(t, s, pod(nsB, "b"))
	serve(t, nsA, "tcp", ":80", "pod a")
	addr := net.JoinHostPort(a.IPs[0].String(), "80")
	for where, netns := range map[string]string{"pod b": nsB, "host": "", "pod a": nsA} {
		if got := ask(t, netns, "tcp", addr); got != "pod a" {
			t.Errorf("from %s: %q", where, got)
		}
	}
	if a.IPs[0] == b.IPs[0] {
		t.Errorf("both pods have %s", a.IPs[0])
	}
	serve(t, nsB, "tcp", "127.0.0.1:81", "own loopback")
	if got := ask(t, nsB, "tcp", "127.0.0.1:81"); got != "own loopback" {
		t.Errorf("loopback: %q", got)
	}
}

func TestHostPorts(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *Service{
		"typical":  openTypical,
		"built in": func(t testing.TB) *Service { return openBuiltin(t, Builtin{}) },
	} {
		t.Run(name, func(t *testing.T) {
			host(t)
			s := start(t)
			netns, other := newNetNS(t), newNetNS(t)
			req := pod(netns, "a")
			req.Ports = []PortMapping{
				{ContainerPort: 80, HostPort: 8080},
				{Protocol: "UDP", ContainerPort: 53, HostPort: 5353},
				{ContainerPort: 80, HostPort: 8081, HostIP: "127.0.0.1"},
				{ContainerPort: 90},
			}
			attach(t, s, req)
			b := attach(t, s, pod(other, "b"))
			serve(t, netns, "tcp", ":80", "web")
			serve(t, netns, "udp", ":53", "dns")
			gateway := b.IPs[0].As4()
			gateway[2], gateway[3] = 0, 1
			self := net.IP(gateway[:]).String()
			for _, c := range []struct{ netns, network, addr, want string }{
				{"", "tcp", "127.0.0.1:8080", "web"},
				{"", "tcp", "127.0.0.1:8081", "web"},
				{"", "tcp", self + ":8080", "web"},
				{"", "udp", "127.0.0.1:5353", "dns"},
				{other, "tcp", self + ":8080", "web"},
				{other, "udp", self + ":5353", "dns"},
			} {
				if got := ask(t, c.netns, c.network, c.addr); got != c.want {
					t.Errorf("%s %s from %q: %q", c.network, c.addr, c.netns, got)
				}
			}
		})
	}
}

func TestDetachWithoutNamespaceAfterRestart(t *testing.T) {
	host(t)
	s := openTypical(t)
	req := pod("", "a")
	t.Run("attach", func(t *testing.T) { // whose end removes the namespace
		req.NetNS = newNetNS(t)
		if _, err := s.Attach(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	})
	restarted := open(t, s.opts)
	if _, ok := restarted.Result("a"); !ok {
		t.Fatal("result lost")
	}
	if err := os.RemoveAll(s.opts.ConfDir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := restarted.Detach(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := restarted.Result("a"); ok {
		t.Error("record stays")
	}
	if left, _ := filepath.Glob(filepath.Join(s.opts.Root, "ipam", "typical", "10.*")); len(left) != 0 {
		t.Errorf("addresses stay: %v", left)
	}
}

func TestFailedAttachLeavesNothing(t *testing.T) {
	host(t)
	root := t.TempDir()
	conf, bin := filepath.Join(root, "net.d"), filepath.Join(root, "bin")
	list := strings.Replace(fmt.Sprintf(typical, filepath.Join(root, "ipam")), `{"type":"portmap"`, `{"type":"broken"},{"type":"portmap"`, 1)
	writeFile(t, filepath.Join(conf, "10.conflist"), list)
	writeFile(t, filepath.Join(bin, "broken"), "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] && echo '{\"code\":11,\"msg\":\"no luck\"}' && exit 1\nexit 0\n")
	if err := os.Chmod(filepath.Join(bin, "broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink("cni0") })
	s := open(t, Options{Root: root, ConfDir: conf, BinDirs: []string{bin, pluginDir(t)}})
	_, err := s.Attach(t.Context(), pod(newNetNS(t), "a"))
	if err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Fatalf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "ipam", "typical", "10.*")); len(left) != 0 {
		t.Errorf("addresses stay: %v", left)
	}
	if _, err := os.Stat(s.recordPath("a")); err == nil {
		t.Error("record stays")
	}
}

func TestAMissingPluginIsMissedBeforeAnythingIsMade(t *testing.T) {
	host(t)
	root := t.TempDir()
	conf := filepath.Join(root, "net.d")
	writeFile(t, filepath.Join(conf, "10.conflist"), strings.Replace(fmt.Sprintf(typical, filepath.Join(root, "ipam")), `{"type":"portmap"`, `{"type":"absent"},{"type":"portmap"`, 1))
	limited := pod(newNetNS(t), "a")
	limited.Annotations = map[string]string{ingressAnnotation: "10M"}
	for plugin, s := range map[string]*Service{
		"absent":    open(t, Options{Root: root, ConfDir: conf, BinDirs: []string{pluginDir(t)}}),
		"bandwidth": open(t, Options{Root: t.TempDir(), Builtin: &Builtin{}, BinDirs: []string{"/nowhere"}}),
	} {
		_, err := s.Attach(t.Context(), limited)
		if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), `"`+plugin+`"`) {
			t.Errorf("%s: %v", plugin, err)
		}
		if _, err := os.Stat(s.recordPath("a")); err == nil {
			t.Errorf("%s: a record stays", plugin)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "ipam", "typical", "10.*")); len(left) != 0 {
		t.Errorf("addresses stay: %v", left)
	}
}

func TestAnotherHostLocalIsAsked(t *testing.T) {
	host(t)
	root := t.TempDir()
	conf, bin := filepath.Join(root, "net.d"), filepath.Join(root, "bin")
	writeFile(t, filepath.Join(conf, "10.conflist"), fmt.Sprintf(typical, filepath.Join(root, "ipam")))
	writeFile(t, filepath.Join(bin, "host-local"), "#!/bin/sh\ncat >/dev/null\necho '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.77.7.7/16\"}]}'\n")
	if err := os.Chmod(filepath.Join(bin, "host-local"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink("cni0") })
	s := open(t, Options{Root: root, ConfDir: conf, BinDirs: []string{bin, pluginDir(t)}})
	if res := attach(t, s, pod("", "a")); res.IPs[0].String() != "10.77.7.7" {
		t.Errorf("address %s", res.IPs[0])
	}
}

func TestRecordHoldsTheIntentBeforeAdd(t *testing.T) {
	host(t)
	root := t.TempDir()
	bin, conf, seen := filepath.Join(root, "bin"), filepath.Join(root, "net.d"), filepath.Join(root, "seen")
	writeFile(t, filepath.Join(conf, "10.conflist"), `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"look"}]}`)
	writeFile(t, filepath.Join(bin, "look"), fmt.Sprintf("#!/bin/sh\ncat >/dev/null\ncp %s/network/a.json %s\necho '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.0.0.2/24\"}]}'\n", root, seen))
	if err := os.Chmod(filepath.Join(bin, "look"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Root: root, ConfDir: conf, BinDirs: []string{bin}})
	if _, err := s.Attach(t.Context(), pod(newNetNS(t), "a")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.Phase != phaseAdding || !r.valid("a") {
		t.Errorf("got %s, %v", data, err)
	}
}

func TestNamespaceIsAttachedAgain(t *testing.T) {
	host(t)
	s := openTypical(t)
	netns := newNetNS(t)
	for range 3 {
		if _, err := s.Attach(t.Context(), pod(netns, "a")); err != nil {
			t.Fatal(err)
		}
		if err := s.Detach(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	host(t)
	s := openTypical(t)
	var wg sync.WaitGroup
	seen := make(chan string, 16)
	for i := range cap(seen) {
		req := pod(newNetNS(t), fmt.Sprintf("p%d", i))
		req.Ports = []PortMapping{{ContainerPort: 80, HostPort: int32(8000 + i)}}
		wg.Go(func() {
			res, err := s.Attach(t.Context(), req)
			if err != nil {
				t.Error(err)
				return
			}
			seen <- res.IPs[0].String()
			if err := s.Detach(t.Context(), req.PodID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(seen)
	unique := map[string]bool{}
	for ip := range seen {
		unique[ip] = true
	}
	if len(unique) != cap(seen) {
		t.Errorf("%d addresses for %d pods", len(unique), cap(seen))
	}
}
