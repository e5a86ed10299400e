package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSeveralClientsAttachAndOneEndsStdin(t *testing.T) {
	p := runPod(t)
	eachExecutor(t, func(t *testing.T, kind string) {
		config := sh("while read l; do echo got $l; done; echo over; exit 3")
		config.Stdin, config.StdinOnce = true, true
		c := p.start(config)
		listener := &heard{}
		quiet := remotecommand.StreamOptions{Stdout: listener}
		listening := make(chan error, 1)
		to := c.attachURL(quiet)
		go func() {
			_, err := session(t.Context(), kind, to, quiet)
			listening <- err
		}()
		in, keys := io.Pipe()
		out := &heard{}
		o := remotecommand.StreamOptions{Stdin: in, Stdout: out}
		talking := make(chan error, 1)
		to = c.attachURL(o)
		go func() {
			_, err := session(t.Context(), kind, to, o)
			talking <- err
		}()
		_, _ = io.WriteString(keys, "one\n") // the outputs tell
		eventually(t, func() error { return out.wants("got one\n") })
		eventually(t, func() error { // it may have come too late for one
			_, _ = io.WriteString(keys, "more\n")
			return listener.wants("got more\n")
		})
		keys.Close()
		for name, ended := range map[string]chan error{"the one that talks": talking, "the one that listens": listening} {
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := listener.wants("over\n"); err != nil {
			t.Error(err)
		}
		if s := c.await(); s.ExitCode != 3 {
			t.Errorf("the container: %v", s)
		}
	})
}

func TestAContainersTerminalIsAttachedTo(t *testing.T) {
	p := runPod(t)
	eachExecutor(t, func(t *testing.T, kind string) {
		config := sh("while read l; do [ $l = end ] && exit 4; stty size; done")
		config.Stdin, config.Tty = true, true
		c := p.start(config)
		for n, size := range []remotecommand.TerminalSize{{Width: 81, Height: 21}, {Width: 121, Height: 41}} { // detach, attach again
			ctx, cancel := context.WithCancel(t.Context())
			in, keys := io.Pipe()
			out, sizes := &heard{}, make(window, 1)
			sizes <- size
			o := remotecommand.StreamOptions{Stdin: in, Stdout: out, Tty: true, TerminalSizeQueue: sizes}
			ended := make(chan error, 1)
			to := c.attachURL(o)
			go func() {
				_, err := session(ctx, kind, to, o)
				ended <- err
			}()
			eventually(t, func() error {
				_, _ = io.WriteString(keys, "size\n")
				return out.wants(fmt.Sprintf("%d %d", size.Height, size.Width))
			})
			if n == 1 {
				_, _ = io.WriteString(keys, "end\n")
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			cancel()
			close(sizes)
			keys.Close()
		}
		if s := c.await(); s.ExitCode != 4 {
			t.Errorf("the container: %v", s)
		}
	})
}

// stuck never returns from Write.
type stuck struct{ till <-chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.till
	return len(p), nil
}

func TestAClientThatDoesNotReadHoldsUpNoContainer(t *testing.T) {
	c := runPod(t).start(sh("sleep 1; head -c 50000000 /dev/zero; exit 6"))
	done := make(chan struct{})
	eachExecutor(t, func(t *testing.T, kind string) {
		o := remotecommand.StreamOptions{Stdout: stuck{done}}
		to := c.attachURL(o)
		go func() { _, _ = session(t.Context(), kind, to, o) }() // ends with done
	})
	s := c.await()
	close(done)
	if s.ExitCode != 6 {
		t.Errorf("the container: %v", s)
	}
}

// goroutines is how many berthd has.
func goroutines(t *testing.T) (n int) {
	t.Helper()
	_, text := debugSocket(t, "/metrics")
	_, rest, _ := strings.Cut(text, "\ngo_goroutines ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// footprint is what berthd and berth-runtime hold.
func footprint(t *testing.T) (fds int, rss int64) {
	t.Helper()
	v, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{berth.DaemonPID(), v.WorkerPID, v.AnchorPID} {
		open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
		if err != nil {
			t.Fatal(err)
		}
		fds += len(open)
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
		if err != nil {
			t.Fatal(err)
		}
		pages, _ := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
		rss += pages * int64(os.Getpagesize())
	}
	return fds, rss
}

// once has a session of which a line comes back, and ends it in the way that n
// says.
func (c *ctr) once(kind string, n int) {
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	in, keys := io.Pipe()
	out := &heard{}
	o := remotecommand.StreamOptions{Stdin: in, Stdout: out}
	to, exec := c.attachURL(o), n%4 == 3
	if exec {
		to = c.execURL(o, "cat")
	}
	ended := make(chan bool)
	go func() {
		defer close(ended)
		_, _ = session(ctx, kind, to, o) // cut, or ended by its input
	}()
	line := fmt.Sprintf("line %d\n", n)
	_, _ = io.WriteString(keys, line) // what is heard tells
	eventually(c.t, func() error { return out.wants(line) })
	if n%2 == 0 || exec {
		cancel()
	}
	keys.Close()
	if !exec && n%2 == 1 {
		cancel() // an attached client has no other end
	}
	<-ended
}

// TestSessionsLeaveTheDaemonsAsTheyWere does BERTH_TEST_SESSIONS of them.
func TestSessionsLeaveTheDaemonsAsTheyWere(t *testing.T) {
	count := 200
	if v := os.Getenv("BERTH_TEST_SESSIONS"); v != "" {
		var err error
		if count, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	config := sh("cat")
	config.Stdin = true
	c := runPod(t).start(config)
	kinds := []string{"SPDY", "WebSocket"}
	for n := range 50 {
		c.once(kinds[n%2], n)
	}
	var fds int
	var rss int64
	settled := func(limit int) func() error {
		return func() error {
			if fds, rss = footprint(t); fds > limit {
				return fmt.Errorf("%d descriptors, %d before", fds, limit)
			}
			return nil
		}
	}
	eventually(t, settled(200))
	fdsBefore, rssBefore, before := fds, rss, goroutines(t)
	for _, part := range []int{count / 2, count - count/2} {
		began := time.Now()
		for n := range part {
			c.once(kinds[n%2], n)
		}
		eventually(t, settled(fdsBefore+3))
		var now int
		eventually(t, func() error {
			if now = goroutines(t); now > before+10 {
				return fmt.Errorf("%d goroutines, %d before", now, before)
			}
			return nil
		})
		t.Logf("%d sessions in %s: descriptors %d → %d, goroutines %d → %d, resident memory %d → %d KiB",
			part, time.Since(began).Round(time.Millisecond), fdsBefore, fds, before, now, rssBefore>>10, rss>>10)
	}
	if rss > rssBefore+24<<20 {
		t.Errorf("resident memory %d → %d KiB", rssBefore>>10, rss>>10)
	}
}

// forward forwards ports as kubectl does and returns the local ones.
func (p *pod) forward(overWebSocket bool, ports ...string) []portforward.ForwardedPort {
	p.t.Helper()
	resp, err := berth.Runtime.PortForward(p.t.Context(), &cri.PortForwardRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	u, err := url.Parse(resp.Url)
	if err != nil {
		p.t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		p.t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u)
	if overWebSocket {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{}); err != nil {
			p.t.Fatal(err)
		}
	}
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var said bytes.Buffer
	f, err := portforward.New(dialer, ports, stop, ready, io.Discard, &said)
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { ended <- f.ForwardPorts() }()
	p.t.Cleanup(func() { close(stop); <-ended })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		p.t.Fatal(err)
	}
	local, err := f.GetPorts()
	if err != nil {
		p.t.Fatal(err)
	}
	return local
}

func TestPortsAreForwardedFromInsideThePod(t *testing.T) {
	on := func(port int, address, answer string) *cri.ContainerConfig {
		return sh(fmt.Sprintf("mkdir -p /www && echo %s > /www/index.html && exec httpd -f -p %s:%d -h /www", answer, address, port))
	}
	p, host := runPod(t, own), runPod(t)
	for port, c := range map[int]*ctr{
		8001: p.start(on(8001, "127.0.0.1", "four")), 8002: p.start(on(8002, "[::1]", "six")), 18333: host.start(on(18333, "127.0.0.1", "host")),
	} { // kubectl gives up all ports after an attempt that is refused
		eventually(t, func() error { return wantText(c.sh("cat /proc/net/tcp /proc/net/tcp6"), fmt.Sprintf(":%04X 0", port)) })
	}
	for name, overWebSocket := range map[string]bool{"SPDY": false, "WebSocket": true} {
		t.Run(name, func(t *testing.T) {
			for i, want := range []string{"four", "six"} {
				ports := p.forward(overWebSocket, ":8001", ":8002", ":8003")
				wantAnswer(t, fmt.Sprintf("127.0.0.1:%d", ports[i].Local), want)
				if answer, err := ask(fmt.Sprintf("127.0.0.1:%d", ports[2].Local)); err == nil {
					t.Errorf("where nobody listens: %q", answer)
				}
			}
			ports := host.forward(overWebSocket, ":18333")
			wantAnswer(t, fmt.Sprintf("127.0.0.1:%d", ports[0].Local), "host")
		})
	}
}
